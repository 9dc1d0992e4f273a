"""A2PR (arXiv 2405.19909): a policy gradient whose imitation is guided by advantages; wPC and TD3+BC as settings."""
