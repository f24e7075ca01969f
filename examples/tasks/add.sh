#!/bin/sh
# Adds tasks with curl: `add.sh QUEUE`. glassq-tasks listens at GLASSQ_TASKS, by default /run/glassq/tasks.sock.
set -eu
queue=$1
tasks() { # tasks METHOD PATH [CURL'S OPTIONS...]: the answer; fails where that is no 2xx
    method=$1 path=$2
    shift 2
    curl --silent --show-error --fail-with-body --unix-socket "${GLASSQ_TASKS:-/run/glassq/tasks.sock}" \
        --request "$method" "http://localhost$path" "$@"
}

# the payload is the body, the path behind the queue is the task's
tasks POST "/tasks/$queue/mail/send?to=ann" --header 'Content-Type: text/plain' --data-binary 'Dear Ann'

# in an hour, under a name that no other task may have
tasks POST "/tasks/$queue" --header 'Content-Type: application/json' \
    --data '{"path": "/mail/remind", "json": {"to": "ann"}, "delay": 3600, "name": "remind-ann"}'

# it is not needed any more
tasks DELETE "/tasks/$queue/remind-ann"
