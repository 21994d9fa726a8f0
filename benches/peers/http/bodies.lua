-- wrk: sends the lines of the file $BODIES in turn as POST bodies; every request is formatted before the run. $HEADER ("Name: value") is
-- added when it is set. The last line printed is "JSON {...}".
local requests, count, at = {}, 0, 0

function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  local name, value = (os.getenv("HEADER") or ""):match("^([^:]+): *(.*)$")
  if name then wrk.headers[name] = value end
  for line in io.lines(os.getenv("BODIES")) do
    count = count + 1
    requests[count] = wrk.format(nil, nil, nil, line)
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('JSON {"requests":%d,"us":%d,"p50":%d,"p99":%d,"failed":%d}\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
