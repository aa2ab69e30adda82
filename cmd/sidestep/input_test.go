package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReadLines(t *testing.T) {
	in := "\xef\xbb\xbf" + `{"id":"a","key":"k","n":1}` + "\r\n\n  \n" + `{"key":7,"id":12}` + "\n" + `{"id":"last","key":"ä"}`
	lines, bad, err := readLines(strings.NewReader(in))
	if err != nil || len(bad) != 0 {
		t.Fatalf("readLines = %v, %v", bad, err)
	}
	var got []string
	for _, l := range lines {
		got = append(got, l.id+" "+l.key+" "+string(l.body))
	}
	want := []string{`a k {"n":1}`, "12 7 {}", "last ä {}"}
	if !slices.Equal(got, want) {
		t.Errorf("readLines = %q, want %q", got, want)
	}
	if n := lines[2].number; n != 5 {
		t.Errorf("the last line has number %d, want 5", n)
	}
}

func TestReadLinesBad(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`{"id":"x"`, "bad JSON"},
		{`nonsense`, "bad JSON"},
		{`{"id":"x","key":"k"} {}`, "bad JSON"},
		{`[1]`, "a JSON array, not an object"},
		{`"x"`, "a JSON string, not an object"},
		{`null`, "a JSON null"},
		{`{"key":"k"}`, "no id"},
		{`{"id":null,"key":"k"}`, "no id"},
		{`{"id":"","key":"k"}`, "id is empty"},
		{`{"id":true,"key":"k"}`, "id is neither"},
		{`{"id":"x"}`, "no key"},
		{`{"id":"x","key":""}`, "key is empty"},
		{`{"id":"x","key":["k"]}`, "key is neither"},
		{`{"id":"first","key":"k"}`, `id "first" is that of line 1`},
		{`{"id":"x","key":"` + strings.Repeat("k", 1025) + `"}`, "1025 bytes, more than 1024"},
		{`{"id":"x","key":"a\u0000b"}`, "NUL"},
		{`{"id":"` + strings.Repeat("i", 256) + `","key":"k"}`, "256 bytes, more than 255"},
		{`{"id":"a\tb","key":"k"}`, "control character"},
		{`{"id":"x","key":"k","p":"` + strings.Repeat("p", maxLine) + `"}`, "more than"},
	} {
		in := `{"id":"first","key":"k"}` + "\n" + tt.in + "\n" + `{"id":"third","key":"k"}` + "\n"
		lines, bad, err := readLines(strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		if len(bad) != 1 || bad[0].Line != 2 || !strings.Contains(bad[0].Reason, tt.want) {
			t.Errorf("readLines(%.40q) found %v, want %q in line 2", tt.in, bad, tt.want)
		}
		if len(lines) != 2 {
			t.Errorf("readLines(%.40q) returned %d lines, want the other 2", tt.in, len(lines))
		}
	}
}
