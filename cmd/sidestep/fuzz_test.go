package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sidestep-go/sidestep/internal/redistest"
	"github.com/sidestep-go/sidestep/listq"
)

// FuzzReadLines: of any input each line is a request, or bad, or blank; requests
// can be accepted, and nothing that the reasons quote carries a control character
// to the terminal.
func FuzzReadLines(f *testing.F) {
	f.Add([]byte(`{"id":"1","key":"a","n":1}` + "\n\n" + `{"id":1,"key":2}` + "\r\n[]\nnull\n"))
	f.Add([]byte("\xef\xbb\xbf" + `{"id":"a","key":"b"}` + "\n" + `{"id":"a","key":"b"}`))
	f.Add([]byte(`{"id":"\u001b[2J","key":"x"}` + "\n" + `{"id":"x","key":"\u0000"}` + "\n" + `{"id":"","key":null}`))
	f.Add([]byte(`{"id":{},"key":[]}` + "\n" + strings.Repeat("[", 20_000) + "\n" + `{"id":1e400,"key":-0}`))
	f.Add([]byte("\x00\n\x1b]0;title\x07\n{\"id\":\"\xff\",\"key\":\"\xfe\"}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		lines, bad, err := readLines(strings.NewReader(string(in)))
		if err != nil {
			t.Fatalf("readLines of %q = %v", in, err)
		}
		seen := make(map[string]bool)
		blank := 0
		for _, text := range strings.Split(strings.TrimPrefix(string(in), "\xef\xbb\xbf"), "\n") {
			if strings.TrimSpace(text) == "" {
				blank++
			}
		}
		if got, want := len(lines)+len(bad)+blank, strings.Count(string(in), "\n")+1; got != want {
			t.Errorf("%q: %d requests, %d bad, %d blank, want %d lines", in, len(lines), len(bad), blank, want)
		}
		for _, l := range lines {
			if seen[l.id] || listq.CheckID(l.id) != nil || listq.CheckLock(l.key) != nil || l.key == "" || !json.Valid(l.body) {
				t.Errorf("%q: accepted %+v", in, l)
			}
			seen[l.id] = true
		}
		for _, b := range bad {
			if b.Reason == "" || strings.ContainsFunc(b.Reason, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%q: the reason %q", in, b.Reason)
			}
		}
	})
}

// FuzzRedisURL: whatever is given for a URL, its password is in no error.
func FuzzRedisURL(f *testing.F) {
	for _, password := range []string{"hunter2secret", "p@ss/word?x#y", "%zz", ":::", "[::", "a b", "\x7f\x00", "é", "../..", "%41"} {
		f.Add(password, "redis", "host:6379/0")
		f.Add(password, "rediss", "host:port")
		f.Add(password, "http", "host")
		f.Add(password, "unix", "/run/s?db=x")
		f.Add(password, "redis", "h/a/b?x=y&max_retries=no")
		f.Add(password, "", "h")
	}
	f.Fuzz(func(t *testing.T, password, scheme, rest string) {
		for _, user := range []string{"", "user"} {
			url := scheme + "://" + user + ":" + password + "@" + rest
			c, err := address{URL: url}.client(1)
			if err == nil {
				c.Close()
				continue
			}
			// Two letters of a password are in any text.
			if len(password) > 4 && !strings.Contains(scheme+rest+urlHelp, password) && strings.Contains(err.Error(), password) {
				t.Errorf("%q: the error shows the password: %v", url, err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("%q: the error %q has a control character", url, err)
			}
		}
	})
}

// FuzzGlobQuote: a quoted text matches itself in Redis, and nothing else.
func FuzzGlobQuote(f *testing.F) {
	f.Add("sidestep-replay:", "x")
	f.Add("a*b?[c]\\", "a*b")
	f.Add("[^a]", "b")
	f.Add("\\", "\\\\")
	f.Add("\n\x00ü", "]")
	rdb := redistest.Mini(f)
	f.Fuzz(func(t *testing.T, text, other string) {
		if text == "" || other == "" || !utf8.ValidString(text) {
			t.Skip() // miniredis panics at patterns that are no UTF-8; ours are hexadecimal
		}
		ctx := t.Context()
		rdb.FlushDB(ctx)
		rdb.MSet(ctx, text, 1, other, 1)
		got, err := rdb.Keys(ctx, globQuote(text)).Result()
		if err != nil || len(got) != 1 || got[0] != text {
			t.Errorf("pattern %q of %q matches %q, %v among it and %q", globQuote(text), text, got, err, other)
		}
	})
}

// FuzzLongFlags: arguments keep their number and their values.
func FuzzLongFlags(f *testing.F) {
	f.Add("-redis", "-1", "--")
	f.Add("-", "--x", "-h")
	f.Add("", "-é", "- ")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		in := []string{a, b, c}
		out := longFlags(in)
		if len(out) != len(in) {
			t.Fatalf("longFlags(%q) = %q", in, out)
		}
		for i := range in {
			if out[i] != in[i] && out[i] != "-"+in[i] {
				t.Errorf("longFlags(%q) = %q", in, out)
			}
		}
	})
}
