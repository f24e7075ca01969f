"""The last that is loaded where processes are forked (forked.py): what they share, none of them looks through."""

import gc

gc.collect()
gc.freeze()
