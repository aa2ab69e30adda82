// Command sidestep shows and tries the library sidestep: code under a
// distributed lock on Redis, with a say in what happens when the lock is taken.
//
//	sidestep demo            the three policies side by side, in ten seconds
//	sidestep replay FILE     run the lines of a file under their locks, and check every promise
//	sidestep soak            keep the library busy for an hour, and see whether anything grows
//	sidestep chaos           harm real processes and servers, and account for every request
//
// Demo and replay need no Redis; with -redis URL they use one. Soak and chaos
// start redis-servers of their own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9/logging"
	"github.com/spf13/cobra"

	"github.com/sidestep-go/sidestep/cmd/sidestep/internal/chaos"
)

// The exit statuses of the command.
const (
	exitOK          = 0
	exitBroken      = 1   // a promise of the library was broken
	exitUnusable    = 2   // wrong usage, unreadable input, no Redis, output that cannot be written
	exitInterrupted = 130 // ended by an interrupt
)

// exitError ends the command with a status. Its text, if any, is printed.
type exitError struct {
	status int
	text   string
}

func (e *exitError) Error() string { return e.text }

func main() {
	if os.Getenv(memberEnv) != "" {
		os.Exit(memberMain(os.Stdin, os.Stdout))
	}
	if os.Getenv(chaos.MemberEnv) != "" {
		os.Exit(chaos.Main(os.Stdin))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second interrupt ends the command at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run runs the command line and returns the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	logging.Disable() // go-redis: what it has to say comes back as errors
	cmd := rootCommand()
	cmd.SetArgs(longFlags(args))
	cmd.SetIn(in)
	written := &output{Writer: out}
	cmd.SetOut(written)
	cmd.SetErr(errOut)
	err := cmd.ExecuteContext(ctx)
	if failed := written.err(); err == nil && failed != nil {
		err = fmt.Errorf("the output is not complete: %w", failed)
	}
	if err == nil {
		return exitOK
	}
	exit, ok := errors.AsType[*exitError](err)
	switch {
	case ok:
	case ctx.Err() != nil:
		exit = &exitError{exitInterrupted, err.Error()}
	default:
		exit = &exitError{exitUnusable, err.Error()}
	}
	if exit.text != "" {
		fmt.Fprintln(errOut, "sidestep:", strings.TrimPrefix(exit.text, "sidestep: "))
	}
	return exit.status
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sidestep",
		Short: "Code under a distributed lock: fail, retry or defer when it is taken",
		Long: `sidestep shows and tries the library sidestep, which runs code under a
distributed lock on Redis and lets every call say what happens when the lock is
taken: fail at once, wait in line, or be stored and run later.

Demo and replay need no Redis: without -redis they use one in memory. Soak and
chaos start redis-servers of their own. Flags may be written with one dash or two.`,
		Example: `  sidestep demo
  sidestep replay changes.jsonl
  sidestep replay -redis redis://localhost:6379 -processes 4 changes.jsonl`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(demoCommand(), replayCommand(), soakCommand(), chaosCommand(), versionCommand())
	root.SetHelpCommand(helpCommand(root))
	return root
}

// helpCommand is cobra's, but for a command that there is not it fails.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [command]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			switch {
			case err != nil:
				return err
			case len(rest) > 0:
				return fmt.Errorf("unknown command %q for %q", rest[0], cmd.CommandPath())
			}
			cmd.InitDefaultHelpFlag() // so that its text has it
			return cmd.Help()
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this command",
		Long:    "Version prints the version of this command, and what it was built with.",
		Example: "  sidestep version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.OutOrStdout(), versionText())
			return nil
		},
	}
}

// versionText is what the build knows of itself.
func versionText() string {
	version := "(devel)"
	revision := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" {
			version = v
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				revision = " " + s.Value[:12]
			}
		}
	}
	return fmt.Sprintf("sidestep %s%s %s %s/%s", version, revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// longFlags writes flags with a single dash, as Go's own commands have them,
// with two. This command has no one-letter flags but -h.
func longFlags(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if a == "--" {
			copy(out[i:], args[i:])
			break
		}
		if len(a) > 2 && a[0] == '-' && a[1] != '-' && (a[1] < '0' || a[1] > '9') {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}
