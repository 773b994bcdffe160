"""Unmodified stomp.py against a mesh of two groups: north and south, each with three nodes.

Run by tests/tests/python_clients.rs, which names the nodes in FERRYMQ_NORTH and FERRYMQ_SOUTH (slaves first).
"""

import os
import queue
import time
import unittest
import uuid

import stomp

WAIT = 20
QUIET = 0.3


def addresses(group):
    hosts = os.environ["FERRYMQ_" + group].split(",")
    return [(host, int(port)) for host, port in (address.rsplit(":", 1) for address in hosts)]


NORTH, SOUTH = addresses("NORTH"), addresses("SOUTH")


class Inbox(stomp.ConnectionListener):
    """Keeps what comes."""

    def __init__(self):
        self.messages = queue.Queue()
        self.receipts = queue.Queue()
        self.errors = queue.Queue()

    def on_message(self, frame):
        self.messages.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_error(self, frame):
        self.errors.put(frame)

    def next(self):
        return self.messages.get(timeout=WAIT)


class StompPy(unittest.TestCase):
    def connect(self, hosts, connection_class=stomp.Connection12, headers=None, **options):
        connection = connection_class(hosts, **options)
        inbox = Inbox()
        connection.set_listener("inbox", inbox)
        connection.connect(wait=True, headers=headers or {})
        self.addCleanup(lambda: connection.is_connected() and connection.disconnect())
        return connection, inbox

    def subscribe(self, connection, inbox, destination, **headers):
        receipt = str(uuid.uuid4())
        options = {"id": 1, "ack": "auto", **headers.pop("options", {})}
        connection.subscribe(destination, headers={"receipt": receipt, **headers}, **options)
        self.assertEqual(inbox.receipts.get(timeout=WAIT), receipt)

    def send(self, connection, inbox, destination, body, **headers):
        """Sends and waits until a majority has it."""
        receipt = str(uuid.uuid4())
        connection.send(destination, body, receipt=receipt, persistent="true", **headers)
        self.assertEqual(inbox.receipts.get(timeout=WAIT), receipt)

    def nothing_more(self, inbox):
        time.sleep(QUIET)
        self.assertTrue(inbox.messages.empty())
        self.assertTrue(inbox.errors.empty())

    def test_each_version_on_a_slave(self):
        for connection_class in (stomp.Connection10, stomp.Connection11, stomp.Connection12):
            with self.subTest(connection_class.__name__):
                connection, inbox = self.connect(NORTH[:1], connection_class)
                name = "/queue/PY." + connection_class.__name__
                self.send(connection, inbox, name, "hällo", colour="red")
                options = {} if connection_class is stomp.Connection10 else {"id": 1}
                connection.subscribe(name, ack="auto", **options)
                message = inbox.next()
                self.assertEqual((message.body, message.headers["colour"]), ("hällo", "red"))
                self.nothing_more(inbox)

    def test_from_a_slave_of_north_to_a_slave_of_south(self):
        south, inbox = self.connect(SOUTH[:1])
        self.subscribe(south, inbox, "/queue/PY.ACROSS")
        north, receipts = self.connect(NORTH[:1])
        for number in range(50):
            self.send(north, receipts, "/queue/PY.ACROSS", str(number))
        self.assertEqual([inbox.next().body for _ in range(50)], [str(number) for number in range(50)])
        self.nothing_more(inbox)

    def test_escapes_in_headers(self):
        connection, inbox = self.connect(NORTH[:1])
        self.subscribe(connection, inbox, "/queue/PY.ESCAPES")
        odd = "colon: newline\n backslash\\ end"
        connection.send("/queue/PY.ESCAPES", "", odd=odd)
        self.assertEqual(inbox.next().headers["odd"], odd)

    def test_bytes_come_as_they_were_sent(self):
        connection, inbox = self.connect(NORTH[:1], auto_decode=False)
        self.subscribe(connection, inbox, "/queue/PY.BYTES")
        body = bytes(range(256)) * 40
        connection.send("/queue/PY.BYTES", body)
        self.assertEqual(inbox.next().body, body)

    def test_acknowledge_and_refuse(self):
        name = "/queue/PY.ACK"
        connection, inbox = self.connect(NORTH[:1])
        for body in ("good", "bad", "left"):
            self.send(connection, inbox, name, body)
        self.subscribe(connection, inbox, name, options={"ack": "client-individual"})
        good, bad, left = (inbox.next() for _ in range(3))
        self.assertEqual([message.body for message in (good, bad, left)], ["good", "bad", "left"])
        connection.ack(good.headers["ack"])
        connection.nack(bad.headers["ack"])
        connection.disconnect(receipt="bye")
        self.assertEqual(inbox.receipts.get(timeout=WAIT), "bye")

        again, inbox = self.connect(NORTH[:1])
        self.subscribe(again, inbox, name)
        message = inbox.next()
        self.assertEqual((message.body, message.headers.get("redelivered")), ("left", "true"))
        self.nothing_more(inbox)
        again.subscribe("/queue/ActiveMQ.DLQ", id=2, ack="auto")
        dead = inbox.next()
        self.assertEqual((dead.body, dead.headers["original-destination"]), ("bad", name))

    def test_transactions(self):
        name = "/queue/PY.TX"
        connection, receipts = self.connect(NORTH[:1])
        watcher, inbox = self.connect(NORTH[:1])
        self.subscribe(watcher, inbox, name)
        transaction = connection.begin()
        self.send(connection, receipts, name, "never", transaction=transaction)
        connection.abort(transaction)
        transaction = connection.begin()
        for number in range(3):
            self.send(connection, receipts, name, str(number), transaction=transaction)
        self.nothing_more(inbox)
        connection.commit(transaction)
        self.assertEqual([inbox.next().body for _ in range(3)], ["0", "1", "2"])
        self.nothing_more(inbox)

    def test_topic_across_groups(self):
        subscribers = [self.connect(SOUTH[:1]) for _ in range(2)]
        for connection, inbox in subscribers:
            self.subscribe(connection, inbox, "/topic/PY.NEWS")
        publisher, receipts = self.connect(NORTH[:1])
        # A subscription reaches the other group within two seconds (P12); until then it may miss what is published.
        end = time.monotonic() + WAIT
        while all(inbox.messages.empty() for _, inbox in subscribers) and time.monotonic() < end:
            self.send(publisher, receipts, "/topic/PY.NEWS", "are you there?")
            time.sleep(0.05)
        self.send(publisher, receipts, "/topic/PY.NEWS", "extra")
        for _, inbox in subscribers:
            while inbox.next().body != "extra":
                pass
            self.nothing_more(inbox)

    def test_selector(self):
        connection, inbox = self.connect(NORTH[:1])
        self.subscribe(connection, inbox, "/queue/PY.SELECT", selector="colour = 'red' AND weight BETWEEN 2 AND 5")
        for colour, weight in (("red", 1), ("blue", 3), ("red", 3)):
            self.send(connection, inbox, "/queue/PY.SELECT", f"{colour} {weight}", colour=colour, weight=weight)
        self.assertEqual(inbox.next().body, "red 3")
        self.nothing_more(inbox)

    def test_heart_beats_keep_an_idle_connection(self):
        connection, inbox = self.connect(NORTH[:1], heartbeats=(400, 400))
        self.subscribe(connection, inbox, "/queue/PY.IDLE")
        time.sleep(2.5)
        self.assertTrue(connection.is_connected())
        connection.send("/queue/PY.IDLE", "awake")
        self.assertEqual(inbox.next().body, "awake")

    def test_next_host_when_the_first_is_not_there(self):
        connection, inbox = self.connect([("127.0.0.1", 1)] + NORTH, reconnect_sleep_initial=0.05)
        self.subscribe(connection, inbox, "/queue/PY.HOSTS")
        connection.send("/queue/PY.HOSTS", "found")
        self.assertEqual(inbox.next().body, "found")

    def test_a_wrong_frame_is_answered_with_an_error(self):
        connection, inbox = self.connect(NORTH[:1])
        connection.subscribe("/queue/PY.WRONG", id=1, ack="auto", headers={"selector": "colour = ="})
        error = inbox.errors.get(timeout=WAIT)
        self.assertIn("selector", error.headers["message"] + str(error.body))


if __name__ == "__main__":
    unittest.main()
