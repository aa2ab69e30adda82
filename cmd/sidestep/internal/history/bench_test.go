package history

import "testing"

func BenchmarkCheck(b *testing.B) {
	ops := holders(1, 1000)
	for b.Loop() {
		if r := Check(ops, Options{}); len(r.Violations) > 0 {
			b.Fatal(r.Violations)
		}
	}
}
