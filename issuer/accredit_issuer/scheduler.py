"""What happens without anybody asking: rotation, CRLs, forgetting, bundles of others.

APScheduler runs ``Issuer.keep_up`` at the next moment at which something can be due, and at least
every five minutes: sleeping machines and moved clocks are caught up with. A run that fails is
tried again soon; nothing is lost by it, since what is due stays due. Other trust domains are asked
for their bundles on a worker of their own, and so are receivers told of security events: however
slow they are, nothing of ours waits for them.
"""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger

from accredit_issuer.clock import system_clock
from accredit_issuer.issuer import Issuer

AT_LEAST_EVERY = timedelta(minutes=5)
AFTER_FAILURE = timedelta(seconds=5)
SOONEST = timedelta(milliseconds=200)

_log = structlog.get_logger("accredit.scheduler")


class Scheduler:
    """Keeps one issuer up to date while it runs."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._arming = threading.Lock()
        self._closed = False
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(1), "federation": ThreadPoolExecutor(1)},
            timezone="UTC",
        )

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()
        self._issuer.pushing.start()
        self._arm(self._next())
        self._arm_polling(self._issuer.clock())

    def close(self) -> None:
        """Finish what runs, and stop."""
        self._issuer.polling.close()
        self._issuer.pushing.close()
        with self._arming:
            self._closed = True
            # Nothing may come due while the workers go: the library's own thread would fail.
            self._scheduler.remove_all_jobs()
        self._scheduler.shutdown(wait=True)

    def _next(self) -> datetime:
        now = self._issuer.clock()
        return min(self._issuer.next_due(now), now + AT_LEAST_EVERY)

    def _arm(self, moment: datetime) -> None:
        self._add(self._run, "keep-up", "default", moment)

    def _arm_polling(self, moment: datetime) -> None:
        self._add(self._poll, "polling", "federation", moment)

    def _add(self, job: Callable[[], None], name: str, executor: str, moment: datetime) -> None:
        # The library looks at the system's clock, whichever is the issuer's.
        wait = max(moment - self._issuer.clock(), SOONEST)
        # Once it is stopping, the library waits for a worker while it holds what adding needs.
        with self._arming:
            if self._closed:
                return
            self._scheduler.add_job(
                job,
                DateTrigger(run_date=system_clock() + wait, timezone="UTC"),
                id=name,
                executor=executor,
                replace_existing=True,
                misfire_grace_time=None,
                # A run that is armed by the one before it may be due before that has returned:
                # skipped, it would be the last.
                max_instances=2,
            )

    def _run(self) -> None:
        try:
            self._issuer.keep_up()
            self._arm(self._next())
        except Exception as error:  # noqa: BLE001 (whatever it was, it must be tried again)
            _log.error("could not keep up", reason=str(error), error=type(error).__name__)
            self._arm(self._issuer.clock() + AFTER_FAILURE)

    def _poll(self) -> None:
        try:
            self._issuer.polling.poll_due()
            self._arm_polling(self._issuer.polling.next_due(self._issuer.clock()))
        except Exception as error:  # noqa: BLE001 (as above)
            _log.error("could not poll", reason=str(error), error=type(error).__name__)
            self._arm_polling(self._issuer.clock() + AFTER_FAILURE)
