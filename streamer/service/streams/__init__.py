"""Streams: admission, catching up, and the audiences of every open stream."""
