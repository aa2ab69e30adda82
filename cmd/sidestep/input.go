package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sidestep-go/sidestep/listq"
)

// maxLine bounds a line of input: the library's default bound on a payload, with
// room for what the command puts around it.
const maxLine = 1<<20 - 4096

// line is a request as read from the input.
type line struct {
	number  int // from 1
	id, key string
	body    json.RawMessage // the other fields, as an object
}

// badLine is a line that cannot be a request.
type badLine struct {
	Line   int    `json:"line"`
	Reason string `json:"reason"`
}

// readLines reads JSON Lines until the end. Blank lines are passed over, bad ones
// are collected.
func readLines(r io.Reader) (lines []line, bad []badLine, err error) {
	bad = []badLine{} // [] in JSON, not null
	seen := make(map[string]int)
	in := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		text, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return lines, bad, err
		}
		if number == 1 {
			text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		}
		if t := bytes.TrimSpace(text); len(t) > 0 {
			l, reason := parseLine(t)
			if first, twice := seen[l.id]; reason == nil && twice {
				reason = fmt.Errorf("id %q is that of line %d", l.id, first)
			}
			if reason != nil {
				bad = append(bad, badLine{number, reason.Error()})
			} else {
				seen[l.id] = number
				l.number = number
				lines = append(lines, l)
			}
		}
		if err != nil {
			return lines, bad, nil
		}
	}
}

// parseLine reads one line: an object with an id and a key.
func parseLine(text []byte) (l line, err error) {
	if len(text) > maxLine {
		return l, fmt.Errorf("%d bytes, more than %d", len(text), maxLine)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return l, fmt.Errorf("a JSON %s, not an object", wrong.Value)
		}
		return l, fmt.Errorf("bad JSON: %w", err)
	}
	if fields == nil {
		return l, errors.New("a JSON null, not an object")
	}
	if l.id, err = name(fields, "id"); err != nil {
		return l, err
	}
	if err := listq.CheckID(l.id); err != nil {
		return l, err
	}
	if l.key, err = name(fields, "key"); err != nil {
		return l, err
	}
	if err := listq.CheckLock(l.key); err != nil {
		return l, err
	}
	delete(fields, "id")
	delete(fields, "key")
	l.body, err = marshal(fields)
	return l, err
}

// name returns a field that is a string or a number, and not empty.
func name(fields map[string]json.RawMessage, field string) (string, error) {
	raw, ok := fields[field]
	if !ok || string(raw) == "null" {
		return "", fmt.Errorf("no %s", field)
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		var n json.Number
		if json.Unmarshal(raw, &n) != nil {
			return "", fmt.Errorf("%s is neither a string nor a number", field)
		}
		s = n.String()
	}
	if s == "" {
		return "", fmt.Errorf("%s is empty", field)
	}
	return s, nil
}
