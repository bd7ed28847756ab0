class_name StreamerResult
extends RefCounted
## What became of a request.

## Whether the server has done it.
var ok := false
## The HTTP status; 0 without a response.
var status := 0
## The word in the type of the problem, such as over-quota.
var problem := ""
## What is wrong, for people.
var detail := ""
## Whether the same request may succeed later.
var is_temporary := false
## Seconds that the server asks to wait.
var retry_after_s := 0.0
## What was asked for, such as a [StreamerPage].
var value: Variant = null


static func failed(what: String, temporary := false) -> StreamerResult:
	var result := StreamerResult.new()
	result.detail = what
	result.is_temporary = temporary
	return result
