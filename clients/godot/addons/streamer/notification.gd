class_name StreamerNotification
extends RefCounted
## A notification as a player receives it. Optional strings are "" if they are missing.
## Its texts are written by other people: do not give them to a RichTextLabel with BBCode.

const Fields := preload("fields.gd")

## A UUID. Unique; two notifications with one id are the same.
var id: String
## When the server stored it: RFC 3339, in UTC.
var created_at: String
## Its kind, for programs.
var type: String
var title: String
var body: String
## Whether there is data; null is data, too.
var has_data: bool
## Any JSON value. Integers of 64 bits are ints.
var data: Variant
## Dictionaries with [code]key[/code] and [code]value[/code], in order.
var properties: Array[Dictionary]
## low, medium, high or emergency; a newer server may have others.
var priority: String
## What it refers to, and the ETag that this had then.
var resource_url: String
var resource_etag: String
var source: String
## The topic that it was sent to.
var topic: String
## Whether it was sent to every player.
var everyone: bool
var expires_at: String
var collapse_key: String
var due_at: String
## When it was marked as read; on pages only.
var read_at: String
## The point after it; on streams only. "" if the server sends it later, or if the
## notification is not stored.
var cursor: String


## Return whether pages have it. Others arrive on streams only.
func is_stored() -> bool:
	# The id of one that is not stored is random, of version 4.
	return id.length() < 15 or id[14] != "4"


## Return the notification that a JSON object is; null if it has another form.
static func read(value: Variant) -> StreamerNotification:
	var fields := Fields.new(value)
	var one := StreamerNotification.new()
	one.id = fields.text("id", true)
	one.created_at = fields.text("created_at", true)
	one.type = fields.text("type")
	one.title = fields.text("title")
	one.body = fields.text("body")
	one.has_data = fields.has("data")
	one.data = fields.any("data")
	one.priority = fields.text("priority")
	if one.priority == "":
		one.priority = "medium"
	one.source = fields.text("source")
	one.topic = fields.text("topic")
	one.everyone = fields.flag("everyone", false)
	one.expires_at = fields.text("expires_at")
	one.collapse_key = fields.text("collapse_key")
	one.due_at = fields.text("due_at")
	one.read_at = fields.text("read_at")
	for item: Variant in fields.list("properties"):
		var property := Fields.new(item)
		one.properties.append(
			{"key": property.text("key", true), "value": property.text("value", true)}
		)
		fields.is_wrong = fields.is_wrong or property.is_wrong
	if fields.any("resource") != null:
		var resource := Fields.new(fields.any("resource"))
		one.resource_url = resource.text("url", true)
		one.resource_etag = resource.text("etag")
		fields.is_wrong = fields.is_wrong or resource.is_wrong
	if not Fields.is_time(one.created_at):
		return null
	return null if fields.is_wrong else one
