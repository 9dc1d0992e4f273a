"""AWR: advantage-weighted regression with V alone, on- and offline, for continuous and discrete actions."""
