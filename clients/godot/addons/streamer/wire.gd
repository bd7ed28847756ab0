extends RefCounted
## A message of the server. Skipping one that cannot be read might skip a notification, so
## that is an error; only an unknown type is ignored.

const Fields := preload("fields.gd")
const JsonReader := preload("json_reader.gd")

const PING := '{"type":"ping"}'
const PONG := '{"type":"pong"}'
## For numbers that a message does not have.
const NONE := -1

var kind := ""
var cursor := ""
var unread := NONE
var marks_version := NONE
var heartbeat_s := 25.0
var notification: StreamerNotification
var gap: StreamerGap
var id := ""
var by := ""
## What a [code]read[/code] is about: the members ids, up_to, all and read.
var change := {}
var code := 0
var reason := ""
## Seconds that a [code]bye[/code] asks to wait; [constant NONE] without.
var delay_s := float(NONE)
## What is wrong with the message, "" if nothing is.
var error := ""


## Return the message that starts a connection, or renews its token.
static func auth(token: String) -> String:
	return JSON.stringify({"type": "auth", "token": token})


## Return the message of a text; with an [member error] if it cannot be read.
static func decode(text: String) -> RefCounted:
	var message := new()
	message._read(text)
	return message


func _read(text: String) -> void:
	var reader := JsonReader.new()
	var value: Variant = reader.parse(text)
	if reader.error != "":
		error = reader.error
		return
	var fields := Fields.new(value)
	kind = fields.text("type", true)
	match kind:
		"hello":
			cursor = fields.text("cursor", true)
			heartbeat_s = fields.real("heartbeat_s", 25.0)
			unread = fields.number("unread", NONE)
			marks_version = fields.number("marks_version", NONE)
		"notification":
			cursor = fields.text("cursor")
			notification = StreamerNotification.read(fields.any("notification"))
			if notification == null:
				fields.is_wrong = true
			else:
				notification.cursor = cursor
		"cursor":
			cursor = fields.text("cursor", true)
		"withdrawn":
			cursor = fields.text("cursor")
			id = fields.text("id", true)
		"replaced":
			id = fields.text("id", true)
			by = fields.text("by", true)
		"gap":
			cursor = fields.text("cursor", true)
			gap = StreamerGap.new()
			gap.reason = fields.text("reason", true)
			gap.topic = fields.text("topic")
			gap.everyone = fields.flag("everyone", false)
			gap.to = cursor
		"read":
			_read_change(fields)
		"unread":
			unread = fields.number("unread", NONE, true)
		"bye":
			code = fields.number("code", 0, true)
			reason = fields.text("reason")
			var delay_ms := fields.real("delay_ms", NONE)
			delay_s = delay_ms / 1000.0 if delay_ms >= 0 else float(NONE)
	if fields.is_wrong:
		error = "a message of the type '%s' with wrong members" % kind


func _read_change(fields: Fields) -> void:
	unread = fields.number("unread", NONE, true)
	marks_version = fields.number("marks_version", NONE)
	change = {"read": fields.flag("read", true)}
	if fields.any("ids") != null:
		change["ids"] = fields.list("ids")
	if fields.text("up_to") != "":
		change["up_to"] = fields.text("up_to")
	if fields.flag("all", false):
		change["all"] = true
