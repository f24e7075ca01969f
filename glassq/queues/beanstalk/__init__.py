"""The queue on beanstalkd. Nothing outside this package names one of its commands, counters or files.

A lease is beanstalkd's ttr, and a touch renews it. An attempt that ended with its process leaves no evidence in the
delivery, but the job's counters show it (`JobStats.lost`).

To use one more command, add it to protocol.py and connection.py.
"""
