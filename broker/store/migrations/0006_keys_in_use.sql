-- minimum reader: 1

-- For the keys in use, which every replica asks for before it is ready: a step of an index for each
-- key instead of a look at every row, which in a million takes longer than a statement may. Whoever
-- needs `grants` waits while it is made, a second for a million rows.
CREATE INDEX grants_key_id ON grants (key_id);
CREATE INDEX imports_key_id ON imports (key_id) WHERE key_id IS NOT NULL;
COMMENT ON INDEX grants_key_id IS 'One entry for each row and one key in nearly all: 7 bytes a row';
