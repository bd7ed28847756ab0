"""
The load: readers and senders on raw sockets, in processes of their own.

The load is cheap, so that the server is measured and not the load. A delivery costs a
reader one ``epoll`` event, one ``recv`` and the count of a mark. Every message contains
exactly one ``#``, and nothing else that a server sends contains one. So readers count
messages without parsing them, whatever a server wraps around them. 19 digits follow the
mark: the nanosecond at which the message was due. (A frame of 291 or 547 bytes has the
mark in its length field. Its deliveries would count twice; every scenario checks the
count.)
"""
