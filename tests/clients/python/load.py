"""Unmodified stomp.py as a producer and a consumer that go on through faults, for tests/tests/python_faults.rs.

    load.py produce NAME QUEUE COUNT HOST:PORT,HOST:PORT…
    load.py consume QUEUE HOST:PORT,HOST:PORT…      (ends when its input does)

Tells on standard output, one line each and before the next step, what the history of the tests wants to know: attempt N,
receipt N, delivery PRODUCER N REDELIVERED, acknowledging PRODUCER N, confirmed PRODUCER N, left.
"""

import itertools
import queue
import sys
import threading
import time

import stomp

WINDOW = 50
SILENCE = 4
RETRY = 0.05
ANSWER = 5

lock = threading.Lock()


def tell(*words):
    with lock:
        print(*words, flush=True)


class Inbox(stomp.ConnectionListener):
    """Hands on what comes, in order; None is the end of the connection."""

    def __init__(self):
        self.frames = queue.Queue()

    def on_message(self, frame):
        self.frames.put(("message", frame))

    def on_receipt(self, frame):
        self.frames.put(("receipt", frame.headers["receipt-id"]))

    def on_error(self, frame):
        self.frames.put(None)

    def on_disconnected(self):
        self.frames.put(None)

    def on_heartbeat_timeout(self):
        self.frames.put(None)


def connect(address):
    connection = stomp.Connection12([address], reconnect_attempts_max=1, timeout=2, heartbeats=(0, 1000))
    inbox = Inbox()
    connection.set_listener("inbox", inbox)
    connection.connect(wait=True, with_connect_command=True)
    return connection, inbox


def over(addresses, work):
    """Does the work over one node after the other until it says that it is done."""
    for address in itertools.cycle(addresses):
        connection = None
        try:
            connection, inbox = connect(address)
            if work(connection, inbox):
                return
        except (stomp.exception.StompException, OSError, queue.Empty):
            pass
        finally:
            close(connection)
        time.sleep(RETRY)


def close(connection):
    try:
        if connection is not None:
            connection.transport.disconnect_socket()
    except (stomp.exception.StompException, OSError):
        pass


def produce(name, destination, count, addresses):
    unreceipted, numbers = [], iter(range(1, count + 1))

    def send(connection, number):
        headers = {"persistent": "true", "producer-id": name, "producer-sequence": number, "p": name, "n": number}
        connection.send(destination, f"{name}/{number}", receipt=str(number), **headers)

    def work(connection, inbox):
        for number in unreceipted:
            send(connection, number)
        while True:
            while len(unreceipted) < WINDOW and (number := next(numbers, None)) is not None:
                tell("attempt", number)
                unreceipted.append(number)
                send(connection, number)
            if not unreceipted:
                return True
            frame = inbox.frames.get(timeout=SILENCE)
            if frame is None:
                return False
            unreceipted.remove(int(frame[1]))
            tell("receipt", frame[1])

    over(addresses, work)


def consume(destination, addresses, is_over):
    def work(connection, inbox):
        connection.subscribe(destination, id=1, ack="client-individual", headers={"activemq.prefetchSize": 50})
        held = []

        def acknowledge(all_but):
            while len(held) > all_but:
                producer, number, ack = held.pop(0)
                tell("acknowledging", producer, number)
                connection.ack(ack, receipt=f"{producer}/{number}")

        while True:
            try:
                frame = inbox.frames.get(timeout=0.1)
            except queue.Empty:
                acknowledge(0)
                if is_over.is_set():
                    return True
                continue
            if frame is None:
                return False
            kind, what = frame
            if kind == "receipt":
                tell("confirmed", *what.rsplit("/", 1))
                continue
            headers = what.headers
            name = (headers["p"], headers["n"])
            if what.body != "/".join(name):
                tell("garbled", *name)
            tell("delivery", *name, headers.get("redelivered", "false"))
            held.append((*name, headers["ack"]))
            # Some are always held, which a change of master has to mark and deliver again.
            acknowledge(5)

    over(addresses, work)


def main():
    role, *rest = sys.argv[1:]
    addresses = [(host, int(port)) for host, port in (address.rsplit(":", 1) for address in rest[-1].split(","))]
    if role == "produce":
        name, destination, count = rest[:3]
        produce(name, destination, int(count), addresses)
    else:
        is_over = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), is_over.set()), daemon=True).start()
        consume(rest[0], addresses, is_over)
    tell("left")


main()
