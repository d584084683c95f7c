-- A word-level language model: 10000 word ids, read as little-endian 16-bit numbers.
--
--     bptt train specs/words.lua --data ids.u16 --tokens u16
--
-- Nearly all of the work is the output layer (1024 x 10000), which is what makes this one differ from charrnn.

return {
    name = "words",
    hidden = 1024,
    vocab = 10000,
    T = 20,
    batch = 32,
}
