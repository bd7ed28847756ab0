extends RefCounted
## The stream of one player over all its connections, as a state machine. Nothing happens
## outside [method tick]: no thread, no timer, no callback.
##
## [codeblock]
##   IDLE -start-> TOKEN -> OPENING -> GREETING -hello-> OPEN
##                  ^          |           |              |     any ending
##                  |          +-----------+--------------+---> WAIT -> TOKEN
##                  +-- 4200, once                        +---> ENDED (42xx)
## [/codeblock]
##
## The cursor moves when the application has finished with an event: after the signal.

signal state_changed(state: State)
signal player_changed(player: String)
signal notified(notification: StreamerNotification)
signal removed(id: String, replaced_by: String)
signal gap_found(gap: StreamerGap)
signal read_changed(change: Dictionary)
signal unread_changed(unread: int)
signal ended(code: int, detail: String)

enum State { STOPPED, CONNECTING, OPEN, WAITING, ENDED }
enum Phase { IDLE, TOKEN, OPENING, GREETING, OPEN, WAIT, ENDED }

const Clock := preload("clock.gd")
const Reconnect := preload("reconnect.gd")
const SeenIds := preload("seen_ids.gd")
const Socket := preload("socket.gd")
const TokenKeeper := preload("token_keeper.gd")
const UnreadNumber := preload("unread_number.gd")
const Wire := preload("wire.gd")

## For TCP, TLS and the handshake.
const OPEN_TIMEOUT_S := 10.0
## Silence before hello, which waits for the server's store.
const HELLO_TIMEOUT_S := 30.0
const PING_AFTER_HEARTBEATS := 1.2
const DEAD_AFTER_HEARTBEATS := 2.5
## After sleep, a connection that does not answer a ping for so long is dead.
const PROBE_S := 5.0
## More time than this between two ticks is sleep. Less is a game that loads a level;
## networks forget a connection after half a minute at the earliest.
const SLEEP_S := 30.0
## Of the time between two ticks so much counts as silence: the client did not read.
const TICK_MAX_S := 1.0
## Keeps a server with a heartbeat of 0 from making its clients spin.
const HEARTBEAT_MIN_S := 0.01
## Between two attempts that the application asks for.
const HURRY_MIN_S := 1.0
## Between two attempts while the application says that there is no network.
const AWAY_ATTEMPT_S := 60.0
const NO_DELAY := -1.0

const _STATES := {
	Phase.IDLE: State.STOPPED,
	Phase.OPEN: State.OPEN,
	Phase.WAIT: State.WAITING,
	Phase.ENDED: State.ENDED,
}

## The point up to which notifications were received; "" while it is unknown.
var cursor := ""
var seen := SeenIds.new()

var _url: String
var _options: Dictionary
var _tokens: TokenKeeper
var _clock: Clock
var _store: StreamerCursorStore
var _open_socket: Callable
var _reconnect: Reconnect
var _topics: PackedStringArray
var _unread: UnreadNumber
var _instance: String
var _phase := Phase.IDLE
var _socket: RefCounted
var _closing: Array[RefCounted] = []
var _sent_token := ""
var _is_token_checked := false
var _player := ""
var _has_player := false
var _marks_version := Wire.NONE
var _shown_unread := Wire.NONE
var _last_tick_s := 0.0
var _last_unix_s := 0.0
var _silence_s := 0.0
var _heartbeat_s := 25.0
var _has_network := true
var _unfilled: Array[StreamerGap] = []
var _is_commit_due := false
var _has_pinged := false
var _is_probing := false
var _attempt_at_s := 0.0
var _delayed_until_s := 0.0
var _last_attempt_s := -INF


## [param open_socket] gets a URL and returns something like a [code]Socket[/code].
func _init(
	url: String,
	options: Dictionary,
	tokens: TokenKeeper,
	clock: Clock,
	store: StreamerCursorStore,
	open_socket: Callable
) -> void:
	_url = url
	_options = options
	_tokens = tokens
	_clock = clock
	_store = store
	_open_socket = open_socket
	_reconnect = Reconnect.new(clock)
	_topics = PackedStringArray(options.get("topics", []))
	_unread = UnreadNumber.new(_topics)
	# By this name a new connection replaces a dead one of the same stream. It names the
	# running client: one of a device or a player would not be unique.
	_instance = Crypto.new().generate_random_bytes(16).hex_encode()


## Return the number of unread; negative while it is unknown.
func unread() -> int:
	return _unread.value


func state() -> State:
	return _STATES.get(_phase, State.CONNECTING)


func start() -> void:
	if not _phase in [Phase.IDLE, Phase.ENDED]:
		return
	# What was refused before is not tried again, and another token may be.
	if _phase == Phase.ENDED:
		_tokens.refuse(_sent_token)
	_reconnect.begin()
	_last_tick_s = _clock.now_s()
	_last_unix_s = _clock.unix_s()
	# Without it an application could hammer by stopping and starting.
	var soonest_s := maxf(_delayed_until_s, _last_attempt_s + HURRY_MIN_S)
	_attempt_at_s = maxf(_last_tick_s, soonest_s)
	_enter(Phase.WAIT if _attempt_at_s > _last_tick_s else Phase.TOKEN)


func stop() -> void:
	_commit_what_is_filled()
	if _phase == Phase.IDLE:
		return
	_leave(false)
	_enter(Phase.IDLE)


## The app or the network is back: check the line, or reconnect soon.
func wake() -> void:
	if _phase == Phase.OPEN:
		_probe()
	elif _phase == Phase.WAIT:
		var soonest_s := maxf(_delayed_until_s, _last_attempt_s + HURRY_MIN_S)
		soonest_s = maxf(soonest_s, _clock.now_s())
		_attempt_at_s = minf(_attempt_at_s, soonest_s + Reconnect.FIRST_S * _clock.random())


## The application says whether there is a network. Without one there are no attempts,
## except one a minute: it may be wrong.
func set_network(is_reachable: bool) -> void:
	if is_reachable == _has_network:
		return
	_has_network = is_reachable
	if is_reachable:
		wake()


## Keep a cursor for the next run of the game.
func commit(of: String) -> void:
	if _has_player:
		_store.save_value(_cursor_name(), of)


## The application is about to fill a gap. Until it has succeeded no cursor is stored by
## itself, so that the next run of the game is told of the gap again.
func begin_fill(gap: StreamerGap) -> void:
	if not _unfilled.has(gap):
		_unfilled.append(gap)


## The gap is filled: store the cursor in the next tick, after the caller's work.
func end_fill(gap: StreamerGap) -> void:
	if _unfilled.has(gap):
		_unfilled.erase(gap)
		_is_commit_due = _unfilled.is_empty()


func _commit_what_is_filled() -> void:
	if _is_commit_due:
		_is_commit_due = false
		_move_to(cursor)


func tick() -> void:
	_commit_what_is_filled()
	var now_s := _clock.now_s()
	var unix_s := _clock.unix_s()
	var passed_s := now_s - _last_tick_s
	# The monotonic clock of some devices stands still while they sleep.
	var has_slept := maxf(passed_s, unix_s - _last_unix_s) > SLEEP_S
	_last_tick_s = now_s
	_last_unix_s = unix_s
	for one in _closing:
		if one.is_closed():
			_closing.erase(one)
			break
	if _phase == Phase.WAIT and _may_attempt(now_s):
		_enter(Phase.TOKEN)
	if _phase == Phase.TOKEN:
		_open()
	if _socket == null:
		return
	if has_slept and _phase == Phase.OPEN:
		_probe()
	_silence_s += minf(passed_s, TICK_MAX_S)
	_take_events()
	if _phase == Phase.OPEN:
		_keep_alive()
	elif _phase == Phase.OPENING and _silence_s > OPEN_TIMEOUT_S:
		_finish(0, "cannot connect in time", NO_DELAY, true)
	elif _phase == Phase.GREETING and _silence_s > HELLO_TIMEOUT_S:
		_finish(0, "no hello in time", NO_DELAY, true)


func _may_attempt(now_s: float) -> bool:
	return now_s >= _attempt_at_s and (_has_network or now_s >= _last_attempt_s + AWAY_ATTEMPT_S)


func _open() -> void:
	# Once per connection: the source may have no better one.
	if not _is_token_checked and _tokens.current == _sent_token:
		_tokens.before_connection()
	_is_token_checked = true
	_tokens.want()
	if _tokens.current == "":
		return
	_set_player()
	_last_attempt_s = _clock.now_s()
	_silence_s = 0.0
	_has_pinged = false
	_is_probing = false
	seen.begin_connection()
	_sent_token = _tokens.current
	_socket = _open_socket.call(_address())
	_enter(Phase.OPENING)


## A cursor, ids and numbers belong to one player.
func _set_player() -> void:
	var player: String = _options.get("player", _tokens.player)
	if _has_player and player == _player:
		return
	_player = player
	_has_player = true
	cursor = _store.load_value(_cursor_name())
	if cursor == "":
		cursor = _options.get("start_cursor", "")
	seen.clear()
	_unfilled.clear()
	_is_commit_due = false
	_unread.value = Wire.NONE
	_shown_unread = Wire.NONE
	_marks_version = Wire.NONE
	player_changed.emit(player)


func _cursor_name() -> String:
	return "cursor %s %s" % [_url, _player]


func _address() -> String:
	# The engine hides the status of a refused handshake. In the stream it is seen.
	var address := _url + "?refusals=stream&instance=" + _instance
	if cursor != "":
		address += "&cursor=" + cursor.uri_encode()
	if _options.get("device", "") != "":
		address += "&device=" + str(_options["device"]).uri_encode()
	if not _topics.is_empty():
		address += "&topics=" + ",".join(_topics).uri_encode()
	return address


func _take_events() -> void:
	var socket := _socket
	# The application may stop the stream in any of its handlers.
	for i in int(_options.get("messages_per_tick", 32)):
		if _socket != socket:
			return
		var kind: Socket.Kind = socket.take()
		if kind == Socket.Kind.NONE:
			return
		_silence_s = 0.0
		_has_pinged = false
		_is_probing = false
		match kind:
			Socket.Kind.OPENED:
				# The first message, since browsers cannot set headers.
				socket.send(Wire.auth(_sent_token))
				_enter(Phase.GREETING)
			Socket.Kind.TEXT:
				_take(Wire.decode(socket.text))
			_:
				_finish(socket.code, socket.text, NO_DELAY, false)


func _take(message: Wire) -> void:
	if message.error == "" and _phase == Phase.GREETING:
		if (
			message.kind
			in ["notification", "cursor", "withdrawn", "replaced", "gap", "read", "unread"]
		):
			message.error = message.kind + " before hello"
	if message.error != "":
		# It may be a notification, which skipping it would lose.
		_finish(0, "unreadable message: " + message.error, NO_DELAY, false)
		return
	if message.kind == "bye":
		_finish(message.code, message.reason, message.delay_s, false)
		return
	if message.kind == "ping":
		_socket.send(Wire.PONG)
	_unread.take(message)
	match message.kind:
		"hello":
			_take_hello(message)
		"notification":
			_take_notification(message)
		"replaced":
			# It precedes a repeat, and is one itself.
			if not seen.was_delivered_before(message.by):
				removed.emit(message.id, message.by)
		"withdrawn":
			removed.emit(message.id, "")
			_move_to(message.cursor)
		"gap":
			message.gap.from = cursor
			# A connection that begins in the handlers continues behind the gap.
			cursor = message.cursor
			gap_found.emit(message.gap)
			if cursor == message.cursor:
				_move_to(cursor)
		"read":
			if message.marks_version != Wire.NONE:
				_marks_version = message.marks_version
			read_changed.emit(message.change)
		"cursor":
			_move_to(message.cursor)
	if unread() != Wire.NONE and unread() != _shown_unread:
		_shown_unread = unread()
		unread_changed.emit(_shown_unread)


func _take_hello(message: Wire) -> void:
	if _phase != Phase.GREETING:
		return
	_reconnect.mark_open()
	_heartbeat_s = maxf(message.heartbeat_s, HEARTBEAT_MIN_S)
	# A stream from now on has a cursor from here on, so that it loses nothing while it is
	# disconnected. A cursor of its own is better.
	if cursor == "":
		_move_to(message.cursor)
	var before := _marks_version
	if message.marks_version != Wire.NONE:
		_marks_version = message.marks_version
	_enter(Phase.OPEN)
	# Marks changed meanwhile. The server does not say which.
	if before != Wire.NONE and before != _marks_version:
		read_changed.emit({"read": true})


func _take_notification(message: Wire) -> void:
	if not seen.is_repeat(message.notification.id):
		_reconnect.mark_proved()
		notified.emit(message.notification)
	_move_to(message.cursor)


func _move_to(to: String) -> void:
	if to == "":
		return
	cursor = to
	if _options.get("auto_commit", true) and _unfilled.is_empty():
		commit(to)


func _probe() -> void:
	# Another one must not put off the end of a line that does not answer this one.
	if _is_probing:
		return
	_socket.send(Wire.PING)
	_has_pinged = true
	_is_probing = true
	_silence_s = 0.0


func _keep_alive() -> void:
	var dead_after_s := DEAD_AFTER_HEARTBEATS * _heartbeat_s
	if _is_probing:
		dead_after_s = minf(PROBE_S, dead_after_s)
	if _silence_s > dead_after_s:
		_finish(0, "silent", NO_DELAY, true)
		return
	if not _has_pinged and _silence_s > PING_AFTER_HEARTBEATS * _heartbeat_s:
		_socket.send(Wire.PING)
		_has_pinged = true
	if _tokens.is_renewal_due():
		_tokens.renew()
	if _tokens.current in ["", _sent_token]:
		return
	_sent_token = _tokens.current
	if not _options.has("player") and _tokens.player != _player:
		_finish(0, "the token is of another player", NO_DELAY, false)
	else:
		_socket.send(Wire.auth(_sent_token))


func _finish(code: int, reason: String, delay_s: float, is_dead: bool) -> void:
	_leave(is_dead)
	match _reconnect.after(code, delay_s, _tokens.can_renew()):
		Reconnect.Next.NEW_TOKEN:
			_tokens.refuse(_sent_token)
			_enter(Phase.TOKEN)
		Reconnect.Next.WAIT:
			_delayed_until_s = _clock.now_s() + _reconnect.delay_s
			_attempt_at_s = _clock.now_s() + _reconnect.wait_s
			_enter(Phase.WAIT)
		_:
			_enter(Phase.ENDED)
			ended.emit(code, reason)


func _leave(is_dead: bool) -> void:
	var socket := _socket
	_socket = null
	if socket == null:
		return
	if is_dead:
		socket.abort()
	else:
		socket.close()
		_closing.append(socket)


func _enter(phase: Phase) -> void:
	var before := state()
	_phase = phase
	_is_token_checked = false
	if state() != before:
		state_changed.emit(state())
