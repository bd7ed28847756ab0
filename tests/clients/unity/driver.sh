#!/bin/sh
# Compiles the driver of the conformance suite for the Unity client, and runs it:
#
#     cd clients/conformance
#     python -m streamer_conformance run --driver "sh ../../tests/clients/unity/driver.sh"
set -e
here=$(cd "$(dirname "$0")" && pwd)
core=$here/../../../clients/unity/Runtime/Core
program=$(mktemp -d)
trap 'rm -rf "$program"' EXIT
mcs -langversion:7 -out:"$program/driver.exe" -r:System.dll -r:System.Core.dll \
  "$here/programs/Driver.cs" "$core"/*.cs "$core"/Net/*.cs
mono "$program/driver.exe"
