class_name StreamerPage
extends RefCounted
## A page of notifications.

const Fields := preload("fields.gd")

## Newest first, unless the query asked for the oldest.
var notifications: Array[StreamerNotification]
## Pass it as [code]before[/code] to get the next older page; "" on the last one.
var next: String
## The unread notifications of the whole inbox.
var unread: int
## The end of the inbox at that moment; a stream continues from it.
var cursor: String
## Why notifications after [code]after[/code] are missing; oldest first only.
var gap: String


## Return the page that a JSON object is; null if it has another form.
static func read(value: Variant) -> StreamerPage:
	var fields := Fields.new(value)
	var page := StreamerPage.new()
	for item: Variant in fields.list("notifications", true):
		var one := StreamerNotification.read(item)
		if one == null:
			return null
		page.notifications.append(one)
	page.next = fields.text("next")
	page.unread = fields.number("unread")
	page.cursor = fields.text("cursor")
	page.gap = fields.text("gap")
	return null if fields.is_wrong else page
