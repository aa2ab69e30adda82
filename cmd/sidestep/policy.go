package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/sidestep-go/sidestep"
)

// policySpec is a policy as it is written on the command line. It is a
// [pflag.Value].
//
// [pflag.Value]: https://pkg.go.dev/github.com/spf13/pflag#Value
type policySpec struct {
	retries, defers bool
	retry, delay    time.Duration
}

// parsePolicy reads fail, retry:DUR, defer:DUR, or retry:DUR,defer:DUR.
func parsePolicy(s string) (policySpec, error) {
	var p policySpec
	if s == "fail" {
		return p, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		name, text, found := strings.Cut(part, ":")
		switch {
		case name == "fail":
			return policySpec{}, fmt.Errorf("policy %q: fail stands alone", s)
		case name != "retry" && name != "defer":
			return policySpec{}, fmt.Errorf("policy %q: %q is none of fail, retry:DUR, defer:DUR", s, part)
		case !found:
			return policySpec{}, fmt.Errorf("policy %q: %s needs a duration, as in %s:1s", s, name, name)
		}
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			return policySpec{}, fmt.Errorf("policy %q: %q is no duration such as 200ms or 5s", s, text)
		case d < 0:
			return policySpec{}, fmt.Errorf("policy %q: %s is negative", s, text)
		case name == "retry" && (p.retries || p.defers):
			return policySpec{}, fmt.Errorf("policy %q: retry comes first, and once", s)
		case name == "defer" && p.defers:
			return policySpec{}, fmt.Errorf("policy %q: defer comes once", s)
		}
		if name == "retry" {
			p.retries, p.retry = true, d
		} else {
			p.defers, p.delay = true, d
		}
	}
	return p, nil
}

// policy returns the library's policy.
func (p policySpec) policy() sidestep.Policy {
	switch {
	case p.retries && p.defers:
		return sidestep.RetryFor(p.retry).Then(sidestep.Defer(p.delay))
	case p.retries:
		return sidestep.RetryFor(p.retry)
	case p.defers:
		return sidestep.Defer(p.delay)
	}
	return sidestep.Fail()
}

// String returns the policy as parsePolicy reads it.
func (p policySpec) String() string {
	switch {
	case p.retries && p.defers:
		return "retry:" + p.retry.String() + ",defer:" + p.delay.String()
	case p.retries:
		return "retry:" + p.retry.String()
	case p.defers:
		return "defer:" + p.delay.String()
	}
	return "fail"
}

// Set is parsePolicy, for flags.
func (p *policySpec) Set(s string) (err error) {
	*p, err = parsePolicy(s)
	return err
}

// Type names the kind of value in help texts.
func (p *policySpec) Type() string { return "policy" }
