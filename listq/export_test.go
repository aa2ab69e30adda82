package listq

// The stored form, for the fuzz test.
var (
	Encode = encode
	Decode = decode
)
