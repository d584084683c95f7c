-- The input of a spec with an embedding: x is the token's row of the table E, with the reals v behind it where there are both.

E = table(vocab, embedding, "embedding.weight")
e = E * token
x = both and concat(e, v) or e
