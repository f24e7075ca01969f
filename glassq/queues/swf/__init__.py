"""Amazon SWF as the queue: one workflow execution a delivery, and its history is the delivery's story.

A delivery starts an execution, which is tagged with its tube. Whoever decides (`deciding`) schedules an activity in the
tube's task list, and whoever works there answers with what became of it; all that follows is a pure function of the
history (`decider`). A reservation is an activity task, whose lease its heartbeats extend; the service knows when one is
lost, and refuses what comes too late. The next form of a delivery goes with the answer, so both happen or neither.

Tags cannot change while an execution runs: a delivery that is buried, or moved to another tube, goes on as a new run of
the same execution. Operators' decisions are signals. A tube that is paused is an execution as well (`pauses`).
"""
