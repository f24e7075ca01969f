"""The syncer: one small process beside beanstalkd, of the same user, that proves for everybody what is on disk.

beanstalkd's answer proves nothing: it may not have synced yet, a failed sync is only a line in its log, and it unlinks
a file before the last copy out of it is written. So whoever needs a proof asks here (`prover.py` has the client):

    server.py    the socket where clients ask: lines, in order; a client that misbehaves is cut off (client.py)
    rounds.py    a round answers all who asked before it began: is the log on?, then fdatasync; two may overlap
    probe.py     what a round asks beanstalkd, in one packet
    files.py     beanstalkd's files: second names (kept.N) and descriptors from their first sight on, gaps, syncs
    refusal.py   after a failed sync nothing is proven until beanstalkd was restarted: written down beside the files
    regular.py   the files beside beanstalkd, and what is none
    prepare.py   before each start of beanstalkd: puts kept files back, cuts off torn ends

It imports as little as possible, reads no settings and no secret, and never holds beanstalkd up.
"""
