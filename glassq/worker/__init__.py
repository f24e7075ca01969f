"""The pool of consumer daemons (worker processes): reserve a job, run its handler, act on the outcome.

`glassq-worker` is one parent and N children, the worker processes. The parent (pool.py) opens no sockets, threads or
clients: it forks, reaps and kills children (children.py), forwards signals, and watches a scoreboard in shared memory,
in which every child publishes its status. Children share the memory of their handlers: a template process has loaded
them, and forks children when the parent asks (template.py, templates.py); the parent adopts them. Where handlers start
threads or open sockets when they are imported, each child loads them itself.

A child holds one queue connection and works one job at a time in its main thread; its keeper thread (lease.py) extends
the lease and beats the heartbeat. A handler that holds the interpreter lock stops the keeper. So silence alone is no
reason to kill a child during an attempt: the parent examines it in /proc (health.py), and every lease outlasts the
deadline (`Settings.lease`).

A lane child (lanes.py) works many jobs at once, of handlers that wait in the event loop or for a socket. Each lane is a
thread with a queue connection and a Consumer of its own. The main thread cancels what overruns its soft deadline. If it
dies, nobody knows which attempt was its end: each counts as lost, and is tried again alone in a plain child.

| what ends                                            | who ends it | how                                       |
|------------------------------------------------------|-------------|-------------------------------------------|
| an attempt at its soft deadline: `deadline - grace`  | keeper      | an exception in the handler               |
| an attempt that lost its lease or its connection     | keeper      | an exception in the handler               |
| an attempt past its hard deadline: `deadline`        | parent      | SIGKILL; its job is free at once          |
| a child that a signal has stopped for 20 s           | parent      | SIGKILL                                   |
| a child without heartbeat outside of an attempt, for | parent      | SIGKILL                                   |
| 20 s without CPU (60 s while it starts), or for      |             |                                           |
| `deadline + grace` even with CPU                     |             |                                           |
| a template that hangs as a child may not, with what  | parent      | SIGKILL to its process group              |
| it is about to fork                                  |             |                                           |
| a template that is not needed any more               | itself      | its pipe is closed; SIGKILL after 5 s     |
| what a handler started, when its attempt is cut off  | child       | SIGKILL (leftovers.py)                    |
| the same, when its child died                        | parent      | SIGKILL; it adopts and reaps orphans      |

| signal     | what the parent does                                                                            |
|------------|-------------------------------------------------------------------------------------------------|
| TERM, INT  | graceful shutdown: children finish what runs; a second one is like QUIT                         |
| QUIT       | cold stop: children give their jobs back, then they are killed                                  |
| HUP        | reload: a new template loads; for each new child that is up, with new settings and handlers, an |
|            | old one ends. If one cannot start, the reload is taken back. `systemctl reload` waits for the   |
|            | outcome (in_effect.py)                                                                          |
| TTIN, TTOU | one child more, one less                                                                        |
| USR2       | writes the stacks of all processes to the log                                                   |

- Crashes. When a child dies at work, the parent records which job, how and why, in a small ring of shared memory
  (crashes.py, postmortem.py). The next consumer of that job adds it to the delivery as evidence, and puts the delivery
  anew before it tries again. What a pool worked that was killed as a whole, the next one reads in the file that the
  memory is (boardfile.py); a job that was held and not begun has lost nothing. Where nobody has seen how attempts
  ended, they are one loss, even if several children died. Losses have a budget of their own (`max_lost`).
- State. Only the parent reports the pool as a whole to systemd and the log (report.py). The pool is ready when all
  children reserve, or when all are up and have waited 10 seconds for the queue. A queue that cannot be reached is one
  log line a minute.
- A queue that takes no puts (disk full, draining). Jobs are given back without delay, and reserving pauses for up to
  half a minute at a time: no work begins whose outcome could not be kept.
- Rates. A rate-limited job stays where it is, burns no attempt and blocks no other tube (throttle.py). Several pools on
  one queue have as many times the rate.
"""
