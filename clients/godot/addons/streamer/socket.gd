extends RefCounted
## One WebSocket connection, polled. Refusals before the upgrade are hidden by the engine;
## the client asks the server for refusals in the stream.

enum Kind { NONE, OPENED, TEXT, CLOSED }

## Above any notification; limits the memory that a hostile server can use.
const MESSAGE_BYTES_MAX := 4 * 1024 * 1024
## A peer that is gone must not keep a closed connection.
const CLOSE_TIMEOUT_MS := 1000

## The message that [method take] took, or why the connection ended.
var text := ""
## The close code of an ended connection; 0 without one.
var code := 0

var _peer := WebSocketPeer.new()
var _is_open := false
var _is_gone := false
var _close_at_ms := 0


func _init(url: String) -> void:
	_peer.inbound_buffer_size = MESSAGE_BYTES_MAX
	_is_gone = _peer.connect_to_url(url) != OK
	if _is_gone:
		text = "cannot connect"
		_is_open = true


## Take the next event; its content is in [member text] and [member code].
func take() -> Kind:
	if _peer == null:
		return Kind.NONE
	if _is_gone:
		_peer = null
		return Kind.CLOSED
	_peer.poll()
	var state := _peer.get_ready_state()
	if not _is_open and state == WebSocketPeer.STATE_OPEN:
		_is_open = true
		return Kind.OPENED
	if _peer.get_available_packet_count() > 0:
		var packet := _peer.get_packet()
		# A binary message is as unreadable as "" is.
		text = packet.get_string_from_utf8() if _peer.was_string_packet() else ""
		return Kind.TEXT
	if state == WebSocketPeer.STATE_CLOSED:
		code = maxi(_peer.get_close_code(), 0)
		text = _peer.get_close_reason()
		_peer = null
		return Kind.CLOSED
	return Kind.NONE


## Send a text message. Does nothing after the end.
func send(message: String) -> void:
	if _peer != null and _peer.get_ready_state() == WebSocketPeer.STATE_OPEN:
		_peer.send_text(message)


## Begin to say goodbye; call [method is_closed] until it is.
func close() -> void:
	if _peer != null:
		_close_at_ms = Time.get_ticks_msec() + CLOSE_TIMEOUT_MS
		_peer.close(1000)


## Return whether the goodbye is over.
func is_closed() -> bool:
	if _peer == null:
		return true
	_peer.poll()
	var is_over := _peer.get_ready_state() == WebSocketPeer.STATE_CLOSED
	if is_over or Time.get_ticks_msec() > _close_at_ms:
		_peer = null
	return _peer == null


## Drop a dead connection without a close handshake.
func abort() -> void:
	_peer = null
