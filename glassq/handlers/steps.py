"""A handler of several steps: `steps = ["module:fetch", "exec:/usr/bin/convert - png:-", "https://..."]`.

They run one after the other within one attempt. A retry goes on at the first step of the settings' list whose result
the delivery does not carry. A result becomes a part of the delivery when the attempt ends and it is put again. So an
attempt that dies with its process, or is given back at a stop, leaves nothing, and its steps run again: a step may run
twice, and is never left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glassq.bodies.results import StepResults
from glassq.errors import DeadlineExceeded
from glassq.routes import call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from glassq.delivery import Delivery
    from glassq.loading import Part
    from glassq.routes import Context, Handler, Result


def in_steps(parts: Sequence[Part]) -> Handler:
    """A handler that runs these steps.

    A function gets the delivery as it came, and all results by `context.results`. A program and a URL get the result of
    the step before them in place of the body, if that has one.
    """
    last = parts[-1].step.name

    def handler(delivery: Delivery, context: Context) -> Result:
        results = StepResults(delivery, context.bodies)
        results.drop_lost()
        context.results = results
        before, value = "", None
        for step, work, options in parts:
            if step.name in results:
                value = None
            else:
                _look_up(context)
                context.step, context.options = step.name, options
                value = call(work, delivery if step.module else results.given_to(delivery, before), context)
                if step.name != last:
                    results.keep(step.name, value)
                    context.done = results.done
            before = step.name
        # it was done before, where the settings had another order
        result: Result = results.get(last, value)
        return result

    return handler


def _look_up(context: Context) -> None:
    """Raises an Interrupt if the attempt has to end: between two steps, because not every step can be interrupted."""
    if why := context.pending():
        raise why
    if not context.remaining():
        raise DeadlineExceeded
