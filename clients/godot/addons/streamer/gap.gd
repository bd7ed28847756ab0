class_name StreamerGap
extends RefCounted
## Some notifications after the client's cursor do not arrive on this stream. See
## [method StreamerClient.fill_gap].

## too_far, trimmed, epoch, ahead or diverged; a newer server may have others.
var reason: String
## The topic whose notifications are missing, "" if it is not one topic.
var topic: String
## Whether only what was sent to everyone is missing.
var everyone: bool
## The client's cursor before the gap; "" if it had none.
var from: String
## The cursor after which the stream continues.
var to: String


## Return whether pages may be read from [member from] on.
func is_from_valid() -> bool:
	return from != "" and reason in ["too_far", "trimmed"]
