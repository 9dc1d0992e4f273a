"""DI-engine: importing this registers the parts of this package with it."""
from ding_cawr.engine import host  # noqa: F401  (refuses a DI-engine in which what follows would fail)

# isort: split
# Each registers itself.
from ding_cawr.engine import buffer, dataset, env, folders, follower, pipeline, policy, stock  # noqa: F401
