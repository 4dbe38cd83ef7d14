# Runs one server for exactly as long as somebody holds the other end of our
# standard input: at end of file (the holder closed it, crashed, was killed) the
# server is killed and its folder removed. Until then it does what each line
# says and answers "ok".
#
# Usage: sh -c "$this" name folder server [argument...]
# Environment: WATCH_KILL, WATCH_PAUSE, WATCH_RESUME, commands that may use $pid.
dir=$1
shift
runner=
ulimit -n "$(ulimit -Hn)" 2>/dev/null

start() {
    rm -f "$dir/pid" "$dir/status"
    (
        "$@" </dev/null >>"$dir/log" 2>&1 &
        echo $! >"$dir/pid.new" && mv "$dir/pid.new" "$dir/pid"
        wait $!
        echo $? >"$dir/status"
    ) >/dev/null &
    runner=$!
}

# Runs a command on the server, unless it has ended by itself: its pid may be
# somebody else's by now.
signal() {
    [ -n "$runner" ] || return 0
    while [ ! -s "$dir/pid" ] && kill -0 "$runner" 2>/dev/null; do sleep 0.02; done
    pid=$(cat "$dir/pid")
    [ -e "$dir/status" ] || eval "$1"
}

end() {
    signal "$WATCH_KILL"
    [ -z "$runner" ] || wait "$runner"
    runner=
}

trap 'exit 0' TERM
trap 'end; rm -rf "$dir"' EXIT
while read -r word; do
    case $word in
    start) end && start "$@" ;;
    kill) end ;;
    pause) signal "$WATCH_PAUSE" ;;
    resume) signal "$WATCH_RESUME" ;;
    esac
    echo ok
done
