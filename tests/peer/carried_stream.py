"""One stream at one side of a carrier, and the session that it moves to."""

from collections import deque

from frames import (
    ABORT, CREDIT, DATA, DONE, END, FRAMES_MAX, MOVED, OPEN, OPENED,
)
from keys import Failure
from stream import ABORT as RECORD_ABORT
from stream import Aborted

FIRST_CREDIT = 65536
CREDIT_STEP = 32768
SHARE = 4096
PATIENCE = 20


class Stream:
    """One stream at one side. `living` as long as the carrier's frames mean something."""

    def __init__(self, carrier, number, opening=b""):
        self.carrier, self.number, self.opening = carrier, number, opening
        self.said, self.written, self.heard = set(), set(), set()
        self.credit = self.window = FIRST_CREDIT
        self.held, self.owed, self.withholds_credit = deque(), 0, False
        self.is_passed_on = False
        # The session of a JOIN, and at an initiator whether it was accepted: None, True, False.
        self.session = self.is_accepted = None
        self.ended = None
        self.report = {"sent": 0, "received": 0, "moved": False}

    def end(self, how):
        """Under the lock: the stream is over."""
        if self.ended is None:
            self.ended = how
            self.report["end"] = how
        self.carrier.streams.pop(self.number, None)
        self.carrier.changed.notify_all()

    def check(self):
        if self.ended not in (None, "clean"):
            raise Failure(self.ended)

    def wait_for(self, condition, what):
        """Under the lock."""
        ready = lambda: self.ended is not None or condition()
        if not self.carrier.changed.wait_for(ready, PATIENCE):
            raise Failure(f"stream {self.number}: nothing moved before {what}")
        self.check()

    # What this side says.

    def send(self, data):
        while data:
            with self.carrier.changed:
                has_credit = lambda: self.credit > 0 or self.carrier.ignores_credit
                self.wait_for(lambda: MOVED in self.said or has_credit(), "credit")
                if MOVED in self.said:
                    break
                most = SHARE if self.carrier.ignores_credit else min(SHARE, self.credit)
                share = data[:most]
                self.carrier.say(self, DATA, share)
                self.credit -= len(share)
                self.report["sent"] += len(share)
                data = data[len(share) :]
        if data:
            for at in range(0, len(data), FRAMES_MAX):
                self.write_in_session(self.session.seal_data(data[at : at + FRAMES_MAX]))

    def write_in_session(self, record):
        """How the session ends means something once the other side has moved (C13)."""
        try:
            self.session.write(record)
        except Failure:
            with self.carrier.changed:
                self.wait_for(lambda: MOVED in self.heard, "MOVED")
            raise

    def send_end(self):
        with self.carrier.changed:
            self.check()
            if MOVED not in self.said:
                self.carrier.say(self, END)
                self.say_done_when_due()
                return
        self.session.send_end()

    def say_done_when_due(self):
        """Under the lock: DONE after END both ways, once all is passed on (C5)."""
        if END in self.said and self.is_passed_on and not {DONE, MOVED} & self.said:
            self.carrier.say(self, DONE)
            if DONE in self.heard:
                self.end("clean")

    def abort(self, reason):
        """C16. What is not written is dropped."""
        with self.carrier.changed:
            if self.ended or DONE in self.written:
                return
            self.carrier.drop(self)
            if MOVED in self.written:
                self.session.write(self.session.seal(RECORD_ABORT, bytes([reason])))
            elif OPEN in self.written | self.heard:
                self.carrier.say(self, ABORT, bytes([reason]))
            self.end(str(Aborted(reason, "us")))

    # What the other side says.

    def receive(self, take, ended):
        """Passes on all that comes: first on the carrier, then in the session (C13)."""
        while (step := self.next_step()) not in ("over", "moved"):
            if isinstance(step, bytes):
                take(step)
                self.taken(len(step))
            else:
                ended()
                with self.carrier.changed:
                    self.is_passed_on = True
                    self.say_done_when_due()
        if step == "moved":
            self.receive_in_session(take, ended)

    def next_step(self):
        with self.carrier.changed:
            all_ended = lambda: END in self.heard and not self.is_passed_on
            self.wait_for(lambda: self.held or all_ended() or MOVED in self.heard, "DATA or END")
            if self.held:
                return self.held.popleft()
            if all_ended():
                return "ended"
            return "moved" if MOVED in self.heard else "over"

    def taken(self, count):
        with self.carrier.changed:
            self.report["received"] += count
            self.owed += count
            self.grant_credit()

    def grant_credit(self):
        """Under the lock (C8)."""
        is_owed = self.owed >= CREDIT_STEP and not {END, MOVED} & self.heard
        if is_owed and not self.withholds_credit and MOVED not in self.said and self.ended is None:
            self.carrier.say(self, CREDIT, self.owed.to_bytes(4, "big"))
            self.window += self.owed
            self.owed = 0

    def receive_in_session(self, take, ended):
        """A session as any (C11); but a direction that had ended has no data."""
        with self.carrier.changed:
            self.wait_for(lambda: self.is_accepted is not None, "the session's answer")
        try:
            if not self.is_accepted:
                raise Failure("the session failed after MOVED")
            if END in self.heard:
                self.session.stream(self.refuse_data)
            else:
                self.session.stream(take, ended)
        except Failure as failure:
            with self.carrier.changed:
                self.end(str(failure))
            raise
        with self.carrier.changed:
            self.end("clean")

    def refuse_data(self, _data):
        raise Failure("violation: data in a session whose direction had ended")

    # Moving.

    def say_moved(self):
        """Under the lock: from now on this side speaks in the session."""
        self.carrier.say(self, MOVED)
        self.report["moved"] = True
        if END in self.said and self.session:
            self.session.send_end()

    def join_lost(self):
        with self.carrier.changed:
            self.is_accepted = False
            self.withholds_credit = False
            self.grant_credit()
            self.carrier.changed.notify_all()
