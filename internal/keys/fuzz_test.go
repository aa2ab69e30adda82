package keys

import (
	"slices"
	"strings"
	"testing"
)

// FuzzKeys: the keys of a queue share a slot, and two queues never share a key.
// Names have no braces (listq.New); prefixes may.
func FuzzKeys(f *testing.F) {
	f.Add("sidestep:", "q", "sidestep:", "q:0", "f")
	f.Add("", "a", "a", "", "f")
	f.Add("{t}:", "q", "{t}:", "r", "last:x")
	f.Add("{", "q", "", "q", "")
	f.Add("a{b", "c", "a", "bc", "f")
	f.Fuzz(func(t *testing.T, prefix, tag, prefix2, tag2, feeder string) {
		if tag == "" || tag2 == "" || strings.ContainsAny(tag+tag2, "{}") {
			t.Skip("refused by listq.New")
		}
		q := Of(Base(prefix, tag))
		seen := make(map[string]bool)
		all := append(slices.Clone(q.All()), q.Last(feeder))
		for _, key := range all {
			if seen[key] {
				t.Errorf("%q twice", key)
			}
			seen[key] = true
			if !strings.HasPrefix(key, q.Base()) {
				t.Errorf("%q does not begin with %q", key, q.Base())
			}
			if !strings.Contains(prefix, "{") && hashed(key) != tag {
				t.Errorf("%q hashes by %q, want %q", key, hashed(key), tag)
			}
			if hashed(prefix+"{") != prefix+"{" && hashed(key) != hashed(q.Base()) {
				t.Errorf("%q and %q hash differently", key, q.Base())
			}
		}
		if !strings.Contains(prefix, "{") && q.Tag() != tag {
			t.Errorf("Tag() = %q, want %q", q.Tag(), tag)
		}
		if Base(prefix, tag) == Base(prefix2, tag2) {
			if prefix != prefix2 || tag != tag2 {
				t.Errorf("%q %q and %q %q have the same keys", prefix, tag, prefix2, tag2)
			}
			return
		}
		if strings.ContainsAny(prefix+prefix2, "{}") {
			return // one may contain the other's tag
		}
		for _, key := range append(slices.Clone(Of(Base(prefix2, tag2)).All()), Of(Base(prefix2, tag2)).Last(feeder)) {
			if seen[key] {
				t.Errorf("%q %q and %q %q share %q", prefix, tag, prefix2, tag2, key)
			}
		}
	})
}

// hashed is what Redis Cluster hashes of a key, in the words of its specification.
func hashed(key string) string {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}
