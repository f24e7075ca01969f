#!/bin/sh
# A target in plain shell: reads one HTTP request from standard input and writes the answer to standard output (as for
# inetd and systemd's Accept=yes). A POST to /append appends its payload to the file "payloads", in $STATE_DIRECTORY or
# here. To show a retry, a task whose payload contains "fail-once" gets 500 at its first attempt.
set -u
state=${STATE_DIRECTORY:-.}
# App Engine's maximum size of a task, in bytes
most=102400
cr=$(printf '\r')

answer() { # STATUS WORDS
    printf 'HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n' \
        "$1" $((${#2} + 1)) "$2"
    exit 0
}

# read takes one byte at a time from a socket, so it leaves the body for dd
IFS=' ' read -r method path _ || exit 0
length=0 queue='' task='' retries=0
while IFS= read -r line; do
    line=${line%"$cr"}
    [ -n "$line" ] || break
    value=${line#*:}
    value=${value# }
    case $(printf '%s' "${line%%:*}" | tr '[:upper:]' '[:lower:]') in
        content-length) length=$value ;;
        x-appengine-queuename) queue=$value ;;
        x-appengine-taskname) task=$value ;;
        x-appengine-taskretrycount) retries=$value ;;
    esac
done

case $length in *[!0-9]* | '' | ???????*) answer '400 Bad Request' 'Content-Length: expected a number' ;; esac
[ "$length" -le "$most" ] || answer '413 Content Too Large' "expected at most $most bytes"
# Read the body before any refusal: closing a socket with unread bytes can destroy the answer.
payload=$state/payload.$$
mkdir -p "$state/done" && : >"$payload" || answer '500 Internal Server Error' 'no disk'
trap 'rm -f "$payload"' EXIT
dd bs=1 count="$length" of="$payload" 2>/dev/null
[ "$(wc -c <"$payload")" -eq "$length" ] || answer '400 Bad Request' 'the payload is cut short'

[ -n "$queue" ] && [ -n "$task" ] || answer '403 Forbidden' 'expected a task of glassq'
# the name becomes part of a path
case $task in *[!A-Za-z0-9_-]*) answer '400 Bad Request' 'X-AppEngine-TaskName: expected a task name' ;; esac
[ "$method $path" = 'POST /append' ] || answer '404 Not Found' 'expected POST /append'

if [ "$retries" = 0 ] && grep -q fail-once "$payload"; then
    answer '500 Internal Server Error' 'not the first time'
fi
# Delivery is at-least-once, so record the names of appended tasks. queue.yaml runs one task at a time, so no lock is
# needed.
if [ ! -e "$state/done/$task" ]; then
    { cat "$payload" && echo; } >>"$state/payloads" && : >"$state/done/$task" ||
        answer '500 Internal Server Error' 'no disk'
fi
answer '200 OK' "appended $length bytes"
