"""Has pictures drawn by replicas: an executor without networks of its own.

A thread listens to each picture that is out and puts what it hears into an inbox; the worker's thread takes it from
there, so the book, files and counters change in one thread, as they do with the scheduler.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sanakit.pipeline.provenance import source_type
from sanakit.server.engine.book import Book
from sanakit.server.engine.catalogue import Catalogue
from sanakit.server.engine.config import EngineConfig
from sanakit.server.engine.drawing import Unfinished
from sanakit.server.engine.errors import reason
from sanakit.server.engine.files import Files, with_inputs
from sanakit.server.engine.jobs import JobPicture
from sanakit.server.engine.models import Models
from sanakit.server.ray.replicas import News, ReplicaLostError, Replicas, Stream, Task
from sanakit.text import CacheInfo

_LOG = logging.getLogger("sanakit.server")

_ATTEMPTS = 2
"""How often a picture may be on its way when its replica ends: as often as the server may end."""

_LOSSES = 8
"""How often its replica may end at all; a picture that only waited there is not suspected."""


@dataclass(kw_only=True, eq=False)
class Sent:
    """A picture that is out.

    begun: whether its replica draws it. step: steps that it made. since: when it made the last one. attempts, losses:
    replicas that ended while they drew it, and while they had it. over: whether it needs nothing more.
    """

    owner: Unfinished
    index: int
    stream: Stream
    attempts: int
    losses: int
    begun: bool = False
    step: int = 0
    since: float = field(default_factory=time.monotonic)
    over: bool = False


class Dispatcher:
    """The executor of an engine whose pictures are drawn by replicas."""

    def __init__(
        self,
        replicas: Replicas,
        config: EngineConfig,
        catalogue: Catalogue,
        models: Models,
        book: Book,
        files: Files,
    ) -> None:
        del catalogue, models  # the replicas have their own
        self._signer = config.signer
        self._replicas, self._book, self._files = replicas, book, files
        self._sent: list[Sent] = []
        self._inbox: deque[tuple[Sent, News | Exception]] = deque()
        self._prompts = Counter[str]()
        self._watched = frozenset[str]()  # jobs, as the replicas were told
        self._listeners = ThreadPoolExecutor(replicas.places, thread_name_prefix="sanakit-replica")
        # One thread: the newest word comes last.
        self._teller = ThreadPoolExecutor(1, thread_name_prefix="sanakit-watch")

    @property
    def drawing(self) -> int:
        """Pictures that are out."""
        return len(self._sent)

    def prompts(self) -> CacheInfo:
        """Return hits and misses of encoded prompts, as the replicas told them."""
        return CacheInfo(self._prompts["prompt_hits"], self._prompts["prompt_misses"], 0)

    def warm(self) -> None:
        """Nothing: replicas load their models as they start."""

    def has_work(self, admits: bool) -> bool:
        """Return whether there is news, a picture to call back, or a place for another one."""
        stale = any(each.owner.ended and not each.over for each in self._sent)
        return bool(self._inbox) or stale or (admits and self._has_place() and self._book.has_todo())

    def turn(self, admits: bool) -> None:
        """Call back what has ended, take in the news, send out what there is a place for."""
        for each in list(self._sent):
            if each.owner.ended:
                self._call_back(each)
        while self._inbox:
            self._hear(*self._inbox.popleft())
        while admits and self._has_place() and (job := self._book.next(lambda _: None)) is not None:
            index = self._book.begin(job)
            if index is not None:
                self._send(job, index, int(job.retried), 0)
        self._tell_watched()

    def close(self) -> None:
        """Call back all that is out."""
        for each in list(self._sent):
            self._call_back(each)
        for pool in (self._listeners, self._teller):
            pool.shutdown(wait=False, cancel_futures=True)

    def _has_place(self) -> bool:
        return len(self._sent) < self._replicas.places

    def _send(self, job: Unfinished, index: int, attempts: int, losses: int) -> None:
        try:
            request = with_inputs(job.job.request.picture(index), self._files)
            task = Task(
                job=job.job.id, model=job.job.model, request=request, attempts=attempts,
                watched=self._book.is_watched(job),
            )  # fmt: skip
            stream = self._replicas.draw(task)
        except Exception as error:
            self._book.end(job, "failed", reason(error))
            return
        sent = Sent(owner=job, index=index, stream=stream, attempts=attempts, losses=losses)
        self._sent.append(sent)
        self._listeners.submit(self._listen, sent)

    def _tell_watched(self) -> None:
        """Tell the replicas when somebody begins to watch a job that is out, or stops to. Noticed at its next step."""
        out = {each.owner.job.id: each.owner for each in self._sent}
        watched = frozenset(name for name, owner in out.items() if self._book.is_watched(owner))
        if watched != self._watched & out.keys():
            self._teller.submit(self._watch, watched)
        self._watched = watched

    def _watch(self, jobs: Set[str]) -> None:
        """Tell the replicas. Runs in a thread of its own, as it waits for their answers."""
        try:
            self._replicas.watch(jobs)
        except Exception:  # the pictures are what counts
            _LOG.exception("replicas can't be told who watches")

    def _listen(self, sent: Sent) -> None:
        """Put all news of a picture into the inbox. Runs in a thread of its own."""
        try:
            for news in sent.stream:
                self._put(sent, news)
        except Exception as error:
            self._put(sent, error)

    def _put(self, sent: Sent, news: News | Exception) -> None:
        with self._book.changed:
            self._inbox.append((sent, news))
            self._book.changed.notify_all()

    def _call_back(self, sent: Sent) -> None:
        if not sent.over:
            self._finish(sent)
            sent.stream.cancel()

    def _finish(self, sent: Sent) -> None:
        sent.over = True
        self._sent.remove(sent)

    def _hear(self, sent: Sent, news: News | Exception) -> None:
        if sent.over:
            return
        if isinstance(news, ReplicaLostError):
            self._lose(sent)
        elif isinstance(news, Exception):
            self._finish(sent)
            self._book.end(sent.owner, "failed", reason(news))
        else:
            self._count(news)
            self._take(sent, news)

    def _take(self, sent: Sent, news: News) -> None:
        job = sent.owner
        if news.kind == "started":
            sent.begun, sent.since = True, time.monotonic()
        elif news.kind == "note" and sent.index == 0:  # all pictures of a job say the same
            self._book.note(job, news.message)
        elif news.kind == "step":
            self._step(sent, news)
        elif news.kind == "picture":
            self._finish(sent)
            self._keep(sent, news)
        elif news.kind == "failed":
            self._finish(sent)
            self._book.end(job, "failed", news.message)

    def _step(self, sent: Sent, news: News) -> None:
        now, made = time.monotonic(), news.step - sent.step
        if made < 1:
            return
        lap = (now - sent.since) / made
        sent.step, sent.since = news.step, now
        first = min(each.index for each in self._sent if each.owner is sent.owner)
        preview = news.preview if sent.index == first else None
        beside = max(0, len(self._sent) - made)
        self._book.stepped([(sent.owner, made)], lap, lap, lambda _: preview, beside)

    def _keep(self, sent: Sent, news: News) -> None:
        """Sign a picture, write it, and only then say that it is there. Keys for signing stay in this process."""
        job = sent.owner
        made = JobPicture(
            id=secrets.token_hex(16),
            index=sent.index,
            seed=news.seed,
            width=news.width,
            height=news.height,
        )
        try:
            signer, request = self._signer, job.job.request
            png = news.png if signer is None else signer.sign(news.png, source_type(request))
            self._files.write_picture(made.id, png)
            if not self._book.add(job, made):
                self._files.remove_picture(made.id)
        except Exception as error:
            self._book.end(job, "failed", reason(error))

    def _lose(self, sent: Sent) -> None:
        """Have another replica draw a picture, from its first step, unless it may be what ends them."""
        self._finish(sent)
        if sent.owner.ended:
            return
        sent.owner.advance(-sent.step)
        attempts, losses = sent.attempts + sent.begun, sent.losses + 1
        if attempts >= _ATTEMPTS:
            self._book.end(sent.owner, "failed", f"its process ended {attempts} times while it was drawn")
        elif losses >= _LOSSES:
            self._book.end(sent.owner, "failed", f"the processes that were to draw it ended, {losses} times")
        else:
            self._send(sent.owner, sent.index, attempts, losses)
            if sent.begun:
                self._book.note(
                    sent.owner, f"the process that drew picture {sent.index} ended: it begins anew"
                )

    def _count(self, news: News) -> None:
        passes = {name: value for name, value in news.counted.items() if not name.startswith("prompt")}
        self._prompts.update({name: int(news.counted[name]) for name in news.counted.keys() - passes.keys()})
        self._book.count(**passes)
