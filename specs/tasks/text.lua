-- English, character by character: few units, so that what a network knows of a text is what it remembers of the last words.
local printable = {"\t", "\n"}
for byte = 32, 126 do table.insert(printable, string.char(byte)) end
return {
    name = "text", hidden = 40, vocab = table.concat(printable), T = 50, batch = 8,
    optimizer = {"adamw", rate = 5e-3, weight_decay = 0.1}, schedule = {"cosine", steps = 6160}, clip = {norm = 1},
}
