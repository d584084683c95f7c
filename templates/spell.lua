-- How the plan's actions are spelled in C: functions with a fixed shape, and calls of them.  Takes no decision: order, places, tiles
-- and fills are the plan's.  unroll = "full" knows every number of rows, so a call of a kernel is one vector of one row.
--
-- Each file adds to one table what the skeletons and the files after it use.

local H = {}
for _, subject in ipairs {"functions", "define", "calls", "bodies", "chunk", "update"} do include("spell/" .. subject .. ".lua")(H) end
return H
