extends Node
## Runs each method whose name begins with test_, and prints one line of JSON for it.

const Fakes := preload("fakes.gd")
const JsonReader := preload("res://addons/streamer/json_reader.gd")
const Reconnect := preload("res://addons/streamer/reconnect.gd")
const SeenIds := preload("res://addons/streamer/seen_ids.gd")
const Stream := preload("res://addons/streamer/notification_stream.gd")
const TokenKeeper := preload("res://addons/streamer/token_keeper.gd")
const UnreadNumber := preload("res://addons/streamer/unread_number.gd")
const Wire := preload("res://addons/streamer/wire.gd")

const FRAME_S := 0.1

var problems: Array[String] = []
var clock: Fakes.FakeClock
var http: Fakes.FakeHttp
var store: Fakes.MemoryStore
var sockets: Array[Fakes.FakeSocket] = []
var client: StreamerClient
var got: Array[StreamerNotification] = []


func _ready() -> void:
	for method in get_method_list():
		var test: String = method["name"]
		if not test.begins_with("test_"):
			continue
		problems.clear()
		store = Fakes.MemoryStore.new()
		clock = Fakes.FakeClock.new()
		await call(test)
		_end()
		print(JSON.stringify({"test": test, "problems": problems}))
	print(JSON.stringify({"test": "end"}))


func test_integers_of_64_bits_keep_every_digit() -> void:
	var text := "[9223372036854775807,-9223372036854775808,9007199254740993]"
	var read: Array = JsonReader.new().parse(text)
	equal(read, [9223372036854775807, -9223372036854775807 - 1, 9007199254740993])
	equal(typeof(read[0]), TYPE_INT)
	equal(typeof(JsonReader.new().parse("18446744073709551615")), TYPE_FLOAT)
	equal(JsonReader.new().parse("[1.5, 1e3, -0, 0.1]"), [1.5, 1000.0, 0, 0.1])


func test_strings_come_back_unchanged() -> void:
	var text := '["", "\\"\\\\\\/\\b\\f\\n\\r\\t", "é€😀", "\\ud83d\\ude00", "\\\\"]'
	equal(JsonReader.new().parse(text), ["", '"\\/\b\f\n\r\t', "é€😀", "😀", "\\"])


func test_what_is_not_json_is_refused() -> void:
	for text: String in [
		"",
		" ",
		"{",
		"[1,]",
		'{"a":1,}',
		"{a:1}",
		"'a'",
		"01",
		"1.",
		".5",
		"+1",
		"1e",
		"-",
		"nul",
		'"',
		'"\\x"',
		"[1 2]",
		'{"a" 1}',
		"1 2",
		"NaN",
		"[",
		'{"a":1',
		"[1}",
		"[" + "[".repeat(5000)
	]:
		var reader := JsonReader.new()
		reader.parse(text)
		truth(reader.error != "", "refused: " + text.left(20))


func test_the_number_of_unread_follows_the_vectors() -> void:
	var vectors: Dictionary = JSON.parse_string(
		FileAccess.get_file_as_string("res://counting.json")
	)
	truth(vectors["cases"].size() >= 15, "the vectors are there")
	for case: Dictionary in vectors["cases"]:
		var number := UnreadNumber.new(PackedStringArray(case["topics"]))
		for step: Array in case["steps"]:
			# The engine's reader makes floats of all numbers, and writes them as such.
			var text := JSON.stringify(step[0]).replace(".0,", ",").replace(".0}", "}")
			number.take(Wire.decode(text))
			equal(number.value, Wire.NONE if step[1] == null else int(step[1]), case["name"])


func test_seen_ids_know_what_earlier_connections_delivered() -> void:
	var seen := SeenIds.new(2)
	seen.begin_connection()
	truth(not seen.is_repeat("a") and not seen.is_repeat("a"), "the same connection")
	seen.begin_connection()
	truth(seen.is_repeat("a"), "another connection")
	truth(seen.was_delivered_before("a") and not seen.was_delivered_before("b"), "asking")
	seen.mark_delivered("p")
	truth(seen.is_repeat("p"), "of a page")
	seen.is_repeat("c")
	truth(not seen.has("a") and seen.has("p") and seen.has("c"), "it forgets the oldest")


func test_waits_double_up_to_twenty_seconds() -> void:
	clock.fraction = 1.0
	var reconnect := Reconnect.new(clock)
	for wanted: float in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]:
		reconnect.mark_open()
		clock.pass_s(9.0)
		equal(reconnect.after(1006, -1.0, false), Reconnect.Next.WAIT)
		equal(reconnect.wait_s, wanted)
	reconnect.mark_open()
	clock.pass_s(10.0)
	reconnect.after(1006, -1.0, false)
	equal(reconnect.wait_s, 0.5)
	for i in 5000:
		reconnect.after(1006, -1.0, false)
	equal(reconnect.wait_s, 20.0)


func test_delays_are_kept_and_bounded_and_refusals_stop() -> void:
	clock.fraction = 0.0
	var reconnect := Reconnect.new(clock)
	reconnect.after(4100, 7.0, false)
	equal(reconnect.wait_s, 7.0)
	reconnect.after(4100, 1e9, false)
	equal(reconnect.wait_s, 300.0)
	reconnect.after(4000, 7.0, false)
	equal(reconnect.wait_s, 0.0)
	equal(reconnect.after(4200, -1.0, true), Reconnect.Next.NEW_TOKEN)
	equal(reconnect.after(4200, -1.0, true), Reconnect.Next.STOP)
	equal(reconnect.after(4201, -1.0, true), Reconnect.Next.STOP)


func test_a_known_message_that_cannot_be_read_is_an_error() -> void:
	for text: String in [
		"",
		"[]",
		"7",
		"{}",
		'{"type":7}',
		'{"type":"hello"}',
		'{"type":"cursor"}',
		'{"type":"unread","unread":"2"}',
		'{"type":"unread"}',
		'{"type":"bye"}',
		'{"type":"notification","notification":{"id":"a"}}',
		'{"type":"notification","notification":{"id":"a","created_at":"yesterday"}}',
		'{"type":"notification","notification":{"id":"a","created_at":"2026-11-20T22:52:39Z","title":7}}'
	]:
		truth(Wire.decode(text).error != "", "unreadable: " + text)
	equal(Wire.decode('{"type":"party","cursor":7}').error, "")


func test_it_authenticates_by_the_first_message() -> void:
	begin()
	hello()
	truth(
		socket().url.begins_with("wss://push.example/v1/stream?refusals=stream&instance="),
		socket().url
	)
	truth(not "t0" in socket().url, "no token in the URL")
	equal(socket().sent, ['{"token":"t0","type":"auth"}'])
	equal(client.state(), Stream.State.OPEN)


func test_the_next_run_of_the_game_resumes_from_the_stored_cursor() -> void:
	begin()
	hello()
	say(note(1, "c 1"))
	_end()
	begin()
	truth(socket().url.ends_with("&cursor=c%201"), socket().url)


func test_a_cursor_is_stored_after_the_handlers() -> void:
	begin()
	var during := []
	client.on("t", func(_one: StreamerNotification) -> void: during.append(client.cursor()))
	hello()
	say(note(1, "c1", ',"type":"t"'))
	equal(during, ["c0"])
	equal(client.cursor(), "c1")


func test_a_handler_may_close_the_client() -> void:
	begin()
	client.notification_received.connect(func(_one: StreamerNotification) -> void: client.close())
	hello()
	socket().say(note(1, "c1"))
	socket().say(note(2, "c2"))
	frames(1)
	equal(got.size(), 1)
	truth(sockets[0].is_gone, "closed")


func test_a_dead_line_is_noticed_and_dropped() -> void:
	begin()
	hello('"cursor":"c0","heartbeat_s":10')
	pass_s(13)
	equal(socket().sent.size(), 2)
	pass_s(11)
	truth(not socket().is_gone, "not yet")
	pass_s(2)
	truth(sockets[0].is_aborted, "dropped")


func test_time_without_frames_is_not_silence_but_the_line_is_checked() -> void:
	begin()
	hello('"cursor":"c0","heartbeat_s":10')
	clock.pass_s(7200)
	frames(1)
	equal(socket().sent[1], Wire.PING)
	say(Wire.PONG)
	pass_s(9)
	truth(not socket().is_gone, "it has answered")
	clock.unix_at_s += 7200
	pass_s(6)
	truth(sockets[0].is_aborted, "nobody answered")
	equal(sockets.size(), 2)


func test_it_never_hammers() -> void:
	for kind in 3:
		begin()
		for i in 6000:
			if not socket().is_gone:
				if kind == 0:
					hello()
				if kind == 1:
					hello('"cursor":7')
				else:
					socket().end(1006)
			pass_s(FRAME_S)
		truth(sockets.size() > 50 and sockets.size() < 70, "attempts: %d" % sockets.size())
		_end()


func test_waking_and_restarting_never_hammer() -> void:
	begin()
	for i in 100:
		if not socket().is_gone:
			socket().end(1006)
		client.wake()
		client.restart()
		pass_s(FRAME_S)
	truth(sockets.size() <= 11, "attempts: %d" % sockets.size())


func test_waking_keeps_the_delay_of_the_server() -> void:
	begin()
	hello()
	say('{"type":"bye","code":4100,"reason":"draining","reconnect":true,"delay_ms":60000}')
	client.wake()
	pass_s(59)
	equal(sockets.size(), 1)
	pass_s(2)
	equal(sockets.size(), 2)


func test_a_refusal_for_good_ends_the_stream_with_the_words_of_the_server() -> void:
	begin()
	var ends := []
	client.ended.connect(func(code: int, detail: String) -> void: ends.append([code, detail]))
	say('{"type":"bye","code":4201,"reason":"forbidden","reconnect":false,"delay_ms":0}')
	pass_s(100)
	equal(sockets.size(), 1)
	equal(ends, [[4201, "forbidden"]])
	equal(client.state(), Stream.State.ENDED)


func test_without_a_network_it_tries_once_a_minute() -> void:
	begin()
	hello()
	client.set_network(false)
	socket().end(1006)
	pass_s(50)
	equal(sockets.size(), 1)
	client.set_network(true)
	pass_s(2)
	equal(sockets.size(), 2)


func test_a_token_is_renewed_on_the_open_stream() -> void:
	var calls := []
	begin(
		"",
		func() -> String:
			calls.append(1)
			return jwt("alice", clock.unix_at_s, clock.unix_at_s + 100)
	)
	hello('"cursor":"c0","heartbeat_s":100000000')
	pass_s(80)
	equal(calls.size(), 1)
	pass_s(5)
	equal(calls.size(), 2)
	equal(socket().sent.size(), 2)


func test_a_source_that_fails_is_not_hammered() -> void:
	var calls := []
	begin(
		"",
		func() -> String:
			calls.append(1)
			return ""
	)
	pass_s(600)
	truth(calls.size() > 5 and calls.size() < 20, "calls: %d" % calls.size())
	equal(sockets.size(), 0)


func test_a_refused_token_is_replaced_once() -> void:
	var calls := []
	begin(
		"t0",
		func() -> String:
			calls.append(1)
			return "t%d" % calls.size()
	)
	hello()
	socket().end(4200, "token")
	pass_s(1)
	equal(sockets.size(), 2)
	socket().accept()
	pass_s(1)
	equal(socket().sent, ['{"token":"t1","type":"auth"}'])
	socket().end(4200, "token")
	pass_s(100)
	equal(client.state(), Stream.State.ENDED)
	equal(calls.size(), 1)


func test_after_the_end_a_start_asks_for_another_token() -> void:
	var calls := []
	begin(
		"",
		func() -> String:
			calls.append(1)
			return "t%d" % calls.size()
	)
	for i in 2:
		socket().end(4200, "token")
		pass_s(2)
	equal(client.state(), Stream.State.ENDED)
	client.restart()
	pass_s(3)
	hello()
	equal(socket().sent, ['{"token":"t3","type":"auth"}'])


func test_waking_often_does_not_keep_a_dead_line() -> void:
	begin()
	hello()
	for i in 8:
		client.wake()
		pass_s(1)
	truth(sockets[0].is_aborted, "nobody answered")
	equal(sockets[0].sent.size(), 2)


func test_a_closed_client_keeps_its_marks_for_the_next_run() -> void:
	begin()
	hello()
	var results := []
	var act := func() -> void: results.append(await client.mark_read(["a"]))
	act.call()
	_end()
	equal(results.size(), 1)
	truth(not results[0].ok, "told")
	begin()
	frames(1)
	equal(http.last().request_body, '{"ids":["a"]}')


func test_another_player_gets_its_own_cursor() -> void:
	var next := [jwt("alice", clock.unix_at_s, clock.unix_at_s + 3600)]
	begin("", func() -> String: return next[0])
	hello('"cursor":"a0","unread":3')
	next[0] = jwt("bob", clock.unix_at_s, clock.unix_at_s + 3600)
	socket().end(4200, "token")
	pass_s(3)
	equal(sockets.size(), 2)
	truth(not "cursor=" in socket().url, socket().url)
	truth(client.unread() < 0, "no number yet")


func test_marks_go_one_after_the_other_and_waiting_ids_join() -> void:
	begin()
	hello()
	var results := []
	mark(["a"], results)
	frames(1)
	mark(["b"], results)
	mark(["c"], results)
	frames(1)
	equal(http.exchanges.size(), 1)
	equal(http.last().url, "https://push.example/v1/players/me/notifications/read")
	equal(http.last().request_body, '{"ids":["a"]}')
	http.last().answer(200, '{"unread":5}')
	pass_s(0.3)
	equal(http.last().request_body, '{"ids":["b","c"]}')
	http.last().answer(200, '{"unread":3}')
	pass_s(0.3)
	equal(results, [5, 3, 3])
	equal(client.pending_marks(), 0)


func test_marks_survive_an_outage_and_the_end_of_the_game() -> void:
	begin()
	hello()
	mark(["a"], [])
	client.ack()
	for i in 300:
		pass_s(1)
		if not http.last().is_done:
			http.last().answer(0)
	equal(client.pending_marks(), 2)
	truth(http.exchanges.size() < 25, "attempts: %d" % http.exchanges.size())
	_end()
	begin()
	pass_s(1)
	equal(http.last().request_body, '{"ids":["a"]}')
	http.last().answer(503, "", "3")
	pass_s(2.5)
	equal(http.exchanges.size(), 1)
	pass_s(3)
	http.last().answer(200, '{"unread":0}')
	pass_s(1)
	equal(http.last().request_body, '{"cursor":"c0"}')


func test_a_refused_mark_is_dropped_and_told() -> void:
	begin()
	var told := []
	client.failed.connect(func(problem: String) -> void: told.append(problem))
	hello()
	mark(["a"], [])
	frames(1)
	http.last().answer(422, '{"type":"about:invalid","detail":"no such id"}')
	frames(2)
	equal(told, ["422 no such id"])
	equal(client.pending_marks(), 0)


func test_marking_all_offline_means_what_has_arrived() -> void:
	begin()
	hello()
	socket().end(1006)
	frames(1)
	client.mark_all_read()
	frames(1)
	equal(http.last().request_body, '{"up_to":"c0"}')


func test_a_gap_is_filled_from_pages_without_repeats() -> void:
	begin()
	var gaps := []
	client.gap_found.connect(func(gap: StreamerGap) -> void: gaps.append(gap))
	hello()
	say(note(1, "c1"))
	say('{"type":"gap","reason":"too_far","cursor":"c9"}')
	say(note(10, "c10"))
	var found := []
	fill(gaps[0], found)
	frames(1)
	truth(http.last().url.ends_with("?limit=100&after=c1"), http.last().url)
	http.last().answer(200, page('"p2"', [11, 10, 9]))
	frames(2)
	truth(http.last().url.ends_with("?limit=100&before=p2&after=c1"), http.last().url)
	http.last().answer(200, page("null", [8]))
	frames(2)
	equal(found, [id(8), id(9), id(11)])
	# It was on the page; the stream was about to deliver it.
	say(note(11, "c11"))
	equal(got.size(), 2)


func test_the_cursor_of_a_gap_is_stored_when_the_gap_is_filled() -> void:
	begin()
	var gaps := []
	var stored_in_handler := []
	var found := []
	client.gap_found.connect(
		func(gap: StreamerGap) -> void:
			gaps.append(gap)
			stored_in_handler.append(stored())
			fill(gap, found)
	)
	hello()
	say('{"type":"gap","reason":"too_far","cursor":"c9"}')
	say(note(10, "c10"))
	equal(client.cursor(), "c10")
	equal(stored_in_handler, ["c0"])
	equal(stored(), "c0")
	http.last().answer(403, '{"detail":"no"}')
	frames(2)
	equal(stored(), "c0", "it was refused")
	var stored_after := []
	fill(gaps[0], found, stored_after)
	frames(1)
	http.last().answer(200, page("null", [8]))
	frames(2)
	equal(found, [id(8)])
	equal(stored_after, ["c0"], "while the caller works")
	equal(stored(), "c10")


func test_the_cursor_of_a_gap_is_stored_after_the_handlers() -> void:
	begin()
	var during := []
	client.gap_found.connect(func(_gap: StreamerGap) -> void: during.append(stored()))
	hello()
	say('{"type":"gap","reason":"too_far","cursor":"c9"}')
	equal(during, ["c0"])
	equal(stored(), "c9")


func test_marking_all_before_anything_has_arrived_is_no_mark_up_to_a_point() -> void:
	begin("t0", Callable(), {"start_cursor": "earliest"})
	client.mark_all_read()
	frames(1)
	equal(http.last().request_body, '{"all":true}')
	equal(client.pending_marks(), 1)
	client.ack()
	equal(client.pending_marks(), 1, "there is nothing to acknowledge")


func test_a_page_is_asked_for_with_all_its_filters() -> void:
	var query := {
		"limit": 5,
		"before": "b",
		"topic": "n/1",
		"unread": true,
		"types": ["x,y", "z"],
		"priorities": ["high"]
	}
	equal(
		StreamerClient.query_of(query),
		"?limit=5&before=b&topic=n%2F1&unread=true&type=x%5C%2Cy&type=z&priority=high"
	)


func test_a_busy_server_is_asked_a_bounded_number_of_times() -> void:
	begin()
	var results := []
	var read := func() -> void: results.append(await client.read_page())
	read.call()
	for i in 100:
		pass_s(1)
		if not http.last().is_done:
			http.last().answer(503)
	equal(http.exchanges.size(), 6)
	equal(results[0].status, 503)
	truth(results[0].is_temporary and not results[0].ok, "told")


func test_the_store_keeps_values_in_a_file() -> void:
	var path := "user://test.cfg"
	DirAccess.remove_absolute(path)
	var kept := StreamerCursorStore.new(path)
	kept.save_value("cursor wss://a/ alice", "c1")
	kept.save_value("other", "x")
	kept.save_value("other", "")
	kept.flush()
	var again := StreamerCursorStore.new(path)
	equal(again.load_value("cursor wss://a/ alice"), "c1")
	equal(again.load_value("other"), "")


func test_a_wrong_url_is_refused() -> void:
	client = StreamerClient.new()
	add_child(client)
	equal(client.open("ftp://x", Callable(), {"token": "t"}), ERR_INVALID_PARAMETER)
	equal(client.open("https://x"), ERR_INVALID_PARAMETER)


func test_examples_of_the_readme_and_the_sample_scene_compile() -> void:
	var examples := DirAccess.get_files_at("res://readme")
	truth(examples.size() >= 3, "the examples are there")
	for example in examples:
		var script: GDScript = load("res://readme/" + example)
		truth(script != null and script.can_instantiate(), example)
	var scene: PackedScene = load("res://example/inbox.tscn")
	var inbox := scene.instantiate()
	inbox.url = "http://127.0.0.1:9"
	inbox.token = "t"
	add_child(inbox)
	inbox._show_on_top(StreamerNotification.read(JSON.parse_string(notification_text(1))))
	inbox._show_on_top(StreamerNotification.read(JSON.parse_string(notification_text(2))))
	inbox._show_on_top(StreamerNotification.read(JSON.parse_string(notification_text(1))))
	var list: ItemList = inbox.get_node("Column/List")
	equal(list.item_count, 2)
	equal(list.get_item_metadata(0), id(1))
	inbox.free()


func begin(token := "t0", source := Callable(), more := {}) -> void:
	http = Fakes.FakeHttp.new()
	sockets.clear()
	got.clear()
	client = StreamerClient.new()
	client.notification_received.connect(got.append)
	add_child(client)
	# The test calls it in its own time.
	client.set_process(false)
	var options := {"clock": clock, "http": http, "store": store, "open_socket": open_socket}
	options.merge(more)
	if token != "":
		options["token"] = token
	equal(client.open("https://push.example/", source, options), OK)
	client._process(0.0)


func _end() -> void:
	if is_instance_valid(client):
		client.free()


func open_socket(url: String) -> Fakes.FakeSocket:
	var one := Fakes.FakeSocket.new()
	one.url = url
	sockets.append(one)
	return one


func socket() -> Fakes.FakeSocket:
	return sockets.back()


func frames(count: int) -> void:
	for i in count:
		clock.pass_s(FRAME_S)
		client._process(FRAME_S)


func pass_s(seconds: float) -> void:
	frames(roundi(seconds / FRAME_S))


func hello(members := '"cursor":"c0"') -> void:
	socket().accept()
	say('{"type":"hello",%s}' % members)


func say(text: String) -> void:
	socket().say(text)
	frames(1)


func mark(ids: Array, results: Array) -> void:
	var result := await client.mark_read(PackedStringArray(ids))
	results.append(result.value)


## Return the cursor that the next run of the game would begin with.
func stored() -> String:
	return store.load_value("cursor wss://push.example/v1/stream ")


func fill(gap: StreamerGap, found: Array, stored_after := []) -> void:
	var result := await client.fill_gap(gap)
	stored_after.append(stored())
	if not result.ok:
		return
	for one: StreamerNotification in result.value:
		found.append(one.id)


func equal(found: Variant, wanted: Variant, what := "") -> void:
	if found != wanted:
		problems.append("%s wanted %s, found %s" % [what, wanted, found])


func truth(fact: bool, what: String) -> void:
	if not fact:
		problems.append("not true: " + what)


static func id(number: int) -> String:
	return "0197f1c2-0000-7000-8000-%012d" % number


static func note(number: int, cursor: String, more := "") -> String:
	var text := '{"type":"notification","cursor":"%s","notification":%s}'
	return text % [cursor, notification_text(number, more)]


static func notification_text(number: int, more := "") -> String:
	return '{"id":"%s","created_at":"2026-11-20T22:52:39.123Z"%s}' % [id(number), more]


static func page(next: String, numbers: Array) -> String:
	var list := PackedStringArray()
	for number: int in numbers:
		list.append(notification_text(number))
	return '{"notifications":[%s],"next":%s,"unread":0,"cursor":"c"}' % [",".join(list), next]


static func jwt(player: String, iat: float, exp_s: float) -> String:
	var claims := JSON.stringify({"sub": player, "iat": iat, "exp": exp_s})
	return "e30.%s.sig" % Marshalls.utf8_to_base64(claims).replace("=", "")
