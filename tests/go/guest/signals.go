package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A trial is one watch that was told to end, and killed while it did.
type trial struct {
	Mode string `json:"mode"`
	// Milliseconds from SIGTERM to SIGKILL; -1 is SIGKILL alone.
	Delay float64 `json:"delay_ms"`
	// How it ended: its exit status, or minus the signal's number.
	Code int `json:"code"`
	// Bytes of the program's text that differed while it was watched, and that still did in the end.
	Probed int `json:"probed"`
	Left   int `json:"left"`
	// How long the text took to be as it was.
	Seconds float64 `json:"seconds"`
}

// text is the code of a process, as it is in its memory.
func text(pid int) ([]byte, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return nil, err
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	var code []byte
	for _, line := range strings.Split(string(maps), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "r-xp" || fields[5] != exe {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		begin, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			return nil, err
		}
		end, err := strconv.ParseUint(to, 16, 64)
		if err != nil {
			return nil, err
		}
		part := make([]byte, end-begin)
		if _, err := memory.ReadAt(part, int64(begin)); err != nil {
			return nil, err
		}
		code = append(code, part...)
	}
	if len(code) == 0 {
		return nil, fmt.Errorf("%s has no code", exe)
	}
	return code, nil
}

// settle is how long the kernel may take to remove the probes of a process that is gone.
const settle = 20 * time.Second

// agentArguments are for an agent that watches the program as soon as it sees it.
var agentArguments = []string{"agent", "--listen", "127.0.0.1:0", "--kubernetes", "off", "--exe", "/go/*", "--interval", "1s"}

// signals has parkwarden watch a program again and again, ended by SIGTERM and SIGKILL some time later, and compares the
// program's code with what it was before.
func signals(step step, result *outcome) error {
	target, err := startTarget(step.Program)
	if err != nil {
		return err
	}
	defer target.end()
	if _, err := target.answer(); err != nil {
		return err
	}
	clean, err := text(target.pid())
	if err != nil {
		return err
	}
	var trials []trial
	for i := 0; i < step.Tries; i++ {
		one := trial{Mode: []string{"filter", "trace", "agent"}[i%3], Delay: 100 * float64(i) / float64(step.Tries)}
		if i%8 == 7 {
			one.Delay = -1
		}
		if err := attempt(target.pid(), clean, step.Arguments, &one); err != nil {
			return fmt.Errorf("try %d: %w", i, err)
		}
		trials = append(trials, one)
		if one.Left > 0 {
			// A watch that ends well takes away what an earlier one has left.
			process, err := startParkwarden(append(step.Arguments, "--for", "1s"), target.pid())
			if err != nil {
				return err
			}
			var ended outcome
			if err := process.finish(&ended); err != nil {
				return err
			}
		}
	}
	if err := target.tell("go"); err != nil {
		return err
	}
	if result.Said, err = target.answer(); err != nil {
		return fmt.Errorf("the program is harmed: %w", err)
	}
	document, err := json.Marshal(trials)
	result.Stdout = string(document)
	return err
}

func attempt(pid int, clean []byte, arguments []string, one *trial) error {
	if one.Mode == "agent" {
		arguments = agentArguments
	} else {
		arguments = append(arguments, "--mode", one.Mode, "--for", "0s")
	}
	process, err := startParkwarden(arguments, pid)
	if err != nil {
		return err
	}
	probed, err := process.until(func() (bool, error) {
		one.Probed, err = differing(pid, clean)
		return one.Probed > 0, err
	})
	if err != nil {
		return err
	}
	if !probed {
		return fmt.Errorf("it does not watch: %s", process.errors.String())
	}
	if one.Delay >= 0 {
		process.command.Process.Signal(syscall.SIGTERM)
		time.Sleep(time.Duration(one.Delay * float64(time.Millisecond)))
	}
	process.command.Process.Signal(syscall.SIGKILL)
	<-process.ended
	one.Code = process.code()
	begun := time.Now()
	for {
		if one.Left, err = differing(pid, clean); err != nil {
			return err
		}
		one.Seconds = time.Since(begun).Seconds()
		if one.Left == 0 || time.Since(begun) > settle {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// differing counts the bytes of a process's code that are not as they were.
func differing(pid int, clean []byte) (int, error) {
	now, err := text(pid)
	if err != nil {
		return 0, err
	}
	if bytes.Equal(now, clean) {
		return 0, nil
	}
	if len(now) != len(clean) {
		return 0, fmt.Errorf("the code of %d has another length", pid)
	}
	n := 0
	for i := range now {
		if now[i] != clean[i] {
			n++
		}
	}
	return n, nil
}
