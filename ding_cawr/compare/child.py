"""``python -m ding_cawr.compare.child FD``: a process of ``LocalLauncher``, which it hears and answers at that end of a
pipe. What is imported here is said in the run's log."""
import sys
from multiprocessing.connection import Connection

from ding_cawr.compare.launchers import work

work(Connection(int(sys.argv[1])))
