-- wrk: tasks of many users, so that no user's rate limit is what is measured. The requests are made before the load
-- begins: the client is to take as little of the machine as it can.
local requests = {}
local turn = 0

function init(args)
    local number = 0
    for token in io.lines(args[1]) do
        number = number + 1
        local body = '{"title": "Water the plants of floor ' .. number .. '", '
            .. '"description": "The fern in the corner takes twice as much as the others.", '
            .. '"due": {"local": "2030-01-31T09:00:00", "time_zone": "Europe/Berlin"}}'
        local headers = { ["Authorization"] = "Bearer " .. token, ["Content-Type"] = "application/json" }
        requests[number] = wrk.format("POST", "/api/v1/tasks", headers, body)
    end
    math.randomseed(os.time())
    turn = math.random(number)
end

function request()
    turn = turn % #requests + 1
    return requests[turn]
end

-- One line for the benchmark to read: requests, microseconds, failures, and the latencies in microseconds.
function done(summary, latency)
    local errors = summary.errors
    local failures = errors.status + errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format("result %d %d %d %d %d\n",
        summary.requests, summary.duration, failures, latency:percentile(50), latency:percentile(99)))
end
