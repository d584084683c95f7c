-- A character-level RNN of English: predicts the next character from those before it.
--
--     bptt train specs/charrnn.lua --data FILE --seconds 10
--     bptt sample charrnn.safetensors --prime "The "
--
-- A spec is a Lua program that returns a table, so it can compute its fields.

local printable = {"\t", "\n"}
for byte = 32, 126 do
    table.insert(printable, string.char(byte))
end

return {
    name = "charrnn",                  -- prefix of everything emitted: charrnn_train, charrnn.c, ...
    hidden = 128,                      -- H, units of the state h
    vocab = table.concat(printable),   -- V = 97; token i is the i-th character of this string
    T = 64,                            -- time steps of a sequence; full BPTT, since K (the horizon) is T when not given
    batch = 32,                        -- B, sequences trained side by side
    optimizer = {"adam", rate = 4e-4},
    clip = {norm = 5},                 -- no update is driven by a gradient longer than this
}
