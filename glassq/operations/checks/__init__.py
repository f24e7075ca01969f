"""What is wrong with an installation, and what to do about it, as values.

| module     | looks at                                                                       |
|------------|--------------------------------------------------------------------------------|
| machine    | what glassq has on this machine: settings, files, databases, handlers, intake  |
| system     | what glassq stands on: versions, systemd's units, disks, the clock             |
| queue      | the queue: what its engine tells of itself, consumers, pauses, what is lost    |

`examine.examine()` goes through all of them. base.py has Check, access.py says who may use which file, in_effect.py
which settings a running program works with, sandbox.py what the pool's unit forbids programs, systemctl.py asks
systemd.
"""
