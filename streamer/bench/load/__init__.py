"""
The load: readers and senders on raw sockets, in processes of their own.

Made to be cheap, so that it is not what is measured. A delivery costs a reader one
``epoll`` event, one ``recv`` and a count of a mark: every message of a bench holds
exactly one ``#``, which is in nothing else that any of the servers sends, so a
notification needs no parsing to be counted, whatever it is wrapped in. Behind it stand
19 digits, the nanosecond at which it was due. (A frame of 291 or 547 bytes has the mark
in its length. Its deliveries would count twice, and every question checks the count.)
"""
