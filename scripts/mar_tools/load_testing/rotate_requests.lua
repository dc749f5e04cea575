-- wrk's side of wrk.py: each connection sends the requests of a folder in turn and logs every answer.
-- Arguments: the folder with <number>.request files, and how many there are.

local ffi = require("ffi")
ffi.cdef("struct timespec { long seconds; long nanoseconds; }; int clock_gettime(int, struct timespec *);")
local CLOCK_MONOTONIC = 1 -- what Python's time.perf_counter reads, on Linux
local moment = ffi.new("struct timespec")

local threads = 0
local log, folder, count, next_number, number, started

local function now()
   ffi.C.clock_gettime(CLOCK_MONOTONIC, moment)
   return tonumber(moment.seconds) + tonumber(moment.nanoseconds) * 1e-9
end

function setup(thread)
   thread:set("thread_number", threads)
   threads = threads + 1
end

function init(arguments)
   folder, count = arguments[1], tonumber(arguments[2])
   next_number = thread_number % count
   log = assert(io.open(folder .. "/" .. thread_number .. ".log", "wb"))
end

function request()
   number = next_number
   next_number = (next_number + 1) % count
   local file = assert(io.open(folder .. "/" .. number .. ".request", "rb"))
   local content = file:read("*a")
   file:close()
   started = now()
   return content
end

function response(status, headers, body)
   local finished = now()
   local batch_size, timing = "", ""
   for name, value in pairs(headers) do
      local lower = name:lower()
      if lower == "x-batch-size" then batch_size = value end
      if lower == "server-timing" then timing = value end
   end
   log:write(string.format("%d\t%.9f\t%.9f\t%d\t%s\t%s\t%d\n",
      number, started, finished, status, batch_size, timing, #body), body)
end

function done(summary)
   local errors = summary.errors
   print("socket errors:" .. (errors.connect + errors.read + errors.write))
end
