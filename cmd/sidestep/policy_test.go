package main

import (
	"strings"
	"testing"
)

func TestParsePolicy(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"fail", "fail"},
		{"retry:200ms", "retry(200ms)"},
		{"retry:0", "retry(0s)"},
		{"defer:1m", "defer(1m0s)"},
		{"retry:200ms,defer:5s", "retry(200ms), then defer(5s)"},
	} {
		p, err := parsePolicy(tt.in)
		if err != nil {
			t.Errorf("parsePolicy(%q) = %v", tt.in, err)
			continue
		}
		if got := p.policy().String(); got != tt.want {
			t.Errorf("parsePolicy(%q).policy() = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestParsePolicyRefuses(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "is none of"},
		{"wait:1s", "is none of"},
		{"Fail", "is none of"},
		{"fail:1s", "fail stands alone"},
		{"fail,defer:1s", "fail stands alone"},
		{"retry", "needs a duration"},
		{"defer", "needs a duration"},
		{"retry:", "no duration"},
		{"retry:5", "no duration"},
		{"defer:soon", "no duration"},
		{"retry:-1s", "negative"},
		{"defer:-1ns", "negative"},
		{"retry:1s,retry:2s", "retry comes first"},
		{"defer:1s,retry:1s", "retry comes first"},
		{"defer:1s,defer:2s", "defer comes once"},
		{"retry:1s,", "is none of"},
		{"retry:1s, defer:1s", "is none of"},
	} {
		p, err := parsePolicy(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("parsePolicy(%q) = %v, %v, want an error with %q", tt.in, p, err, tt.want)
		}
	}
}

// What parses is a valid policy, and prints itself as what parses to the same.
func FuzzParsePolicy(f *testing.F) {
	for _, s := range []string{"fail", "retry:1s", "defer:1h2m", "retry:0,defer:1ns", "retry:1s,fail", "defer:9999999h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePolicy(s)
		if err != nil {
			return
		}
		again, err := parsePolicy(p.String())
		if err != nil || again != p {
			t.Errorf("parsePolicy(%q) = %v, which parses to %v, %v", s, p, again, err)
		}
		if p.retry < 0 || p.delay < 0 {
			t.Errorf("parsePolicy(%q) = %v, negative", s, p)
		}
		if p.policy() == nil {
			t.Errorf("parsePolicy(%q).policy() = nil", s)
		}
	})
}
