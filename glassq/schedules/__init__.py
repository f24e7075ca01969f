"""Periodic work: at the times of a schedule, one delivery is put, once over all hosts that share a ledger.

[[schedule]], cron.yaml --> opening.py: Schedule --+
                            (../due.py: when)      +--> scheduler.py --put, proof--> queue
                            table.py: what was put +
"""
