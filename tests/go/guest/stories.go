package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// run calls parkwarden and waits.
func run(step step, result *outcome) error {
	process, err := startParkwarden(step.Arguments, 0)
	if err != nil {
		return err
	}
	return process.finish(result)
}

// watch has parkwarden watch a program while it leaks, and interrupts the watch once it has.
func watch(step step, result *outcome) error {
	target, err := startTarget(step.Program)
	if err != nil {
		return err
	}
	defer target.end()
	if _, err := target.answer(); err != nil {
		return err
	}
	process, err := startParkwarden(step.Arguments, target.pid())
	if err != nil {
		return err
	}
	watching, err := process.says("parkwarden: watching pid")
	if err != nil || !watching {
		if err == nil {
			err = process.finish(result)
		}
		return err
	}
	if err := target.tell("go"); err != nil {
		return err
	}
	if result.Said, err = target.answer(); err != nil {
		return err
	}
	process.command.Process.Signal(syscall.SIGINT)
	return process.finish(result)
}

// look calls parkwarden for a program that stands still.
func look(step step, result *outcome) error {
	return lookAs(parkwarden, step, result)
}

func lookAs(program string, step step, result *outcome) error {
	target, err := startTarget(step.Program)
	if err != nil {
		return err
	}
	defer target.end()
	if result.Said, err = target.answer(); err != nil {
		return err
	}
	process, err := startAs(program, step.Arguments, target.pid())
	if err != nil {
		return err
	}
	return process.finish(result)
}

// The files of the two profiles that vitals compares.
const ours, theirs = "/ours.pb.gz", "/theirs.pb.gz"

// vitals calls parkwarden for a program that has taken what its runtime says of itself, which it tells afterwards. Where a profile is
// asked for, both have written theirs.
func vitals(step step, result *outcome) error {
	target, err := startTarget(step.Program)
	if err != nil {
		return err
	}
	defer target.end()
	if _, err := target.answer(); err != nil {
		return err
	}
	ask := func(command string) (answer json.RawMessage, err error) {
		if err = target.tell(command); err == nil {
			answer, err = target.answer()
		}
		return answer, err
	}
	for _, command := range []string{"do allocate", "take"} {
		if _, err := ask(command); err != nil {
			return err
		}
	}
	process, err := startParkwarden(step.Arguments, target.pid())
	if err != nil {
		return err
	}
	if err := process.finish(result); err != nil {
		return err
	}
	if step.Arguments[0] == "profile" {
		if _, err := ask("profile " + step.Arguments[1] + " " + theirs); err != nil {
			return err
		}
		result.Found = map[string]any{}
		for _, path := range []string{ours, theirs} {
			bytes, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("%w: %s", err, result.Stderr)
			}
			// As numbers: what is no text does not survive as one.
			numbers := make([]int, len(bytes))
			for i, b := range bytes {
				numbers[i] = int(b)
			}
			result.Found[path] = numbers
		}
		return nil
	}
	result.Said, err = ask("tell")
	return err
}

func get(address string) (int, string, error) {
	client := http.Client{Timeout: 30 * time.Second}
	answer, err := client.Get(address)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

// agent runs parkwarden agent until its list of processes has the program as watched, and scrapes it.
func agent(step step, result *outcome) error {
	target, err := startTarget(step.Program)
	if err != nil {
		return err
	}
	defer target.end()
	if result.Said, err = target.answer(); err != nil {
		return err
	}
	process, err := startParkwarden(step.Arguments, target.pid())
	if err != nil {
		return err
	}
	const url = "http://127.0.0.1:9465"
	result.Found = map[string]any{}
	report := fmt.Sprintf("%s/api/v1/processes/%d", url, target.pid())
	seen, err := process.until(func() (bool, error) {
		status, body, err := get(report)
		if err != nil || status != 200 {
			// It does not serve yet, or has not looked yet.
			return false, nil
		}
		var looked struct{ Groups []json.RawMessage }
		if err := json.Unmarshal([]byte(body), &looked); err != nil {
			return false, err
		}
		result.Found["report"] = body
		return len(looked.Groups) > 0, nil
	})
	if err != nil {
		return err
	}
	if seen {
		for _, name := range []string{"metrics", "readyz", "healthz"} {
			status, body, err := get(url + "/" + name)
			if err != nil {
				return err
			}
			result.Found[name], result.Found[name+"_status"] = body, status
		}
	}
	begun := time.Now()
	process.command.Process.Signal(syscall.SIGTERM)
	err = process.finish(result)
	result.Found["end_seconds"] = time.Since(begun).Seconds()
	return err
}

// oom has the kernel kill a watched program for lack of memory in a control group of its own, and asks for the timeline.
func oom(step step, result *outcome) error {
	const root, group = "/sys/fs/cgroup", "/sys/fs/cgroup/shop"
	if err := mount("cgroup2", root); err != nil {
		return err
	}
	if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory"), 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(group, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(group+"/memory.max", []byte("67108864"), 0o644); err != nil {
		return err
	}
	target, err := startTarget(step.Program)
	if err != nil {
		return err
	}
	defer target.end()
	if _, err := target.answer(); err != nil {
		return err
	}
	if err := os.WriteFile(group+"/cgroup.procs", []byte(fmt.Sprint(target.pid())), 0o644); err != nil {
		return err
	}
	process, err := startParkwarden(step.Arguments, target.pid())
	if err != nil {
		return err
	}
	watching, err := process.says("parkwarden: watching pid")
	if err != nil {
		return err
	}
	if watching {
		if err := target.tell("leak"); err != nil {
			return err
		}
	}
	if err := process.finish(result); err != nil {
		return err
	}
	events, err := os.ReadFile(group + "/memory.events")
	if err != nil {
		return err
	}
	timeline := outcome{}
	process, err = startParkwarden([]string{"timeline", "--record", "/recording.db", "--pid", "{pid}", "--format", "json"}, target.pid())
	if err != nil {
		return err
	}
	err = process.finish(&timeline)
	result.Found = map[string]any{
		"events": strings.TrimSpace(string(events)), "timeline": timeline.Stdout, "timeline_stderr": timeline.Stderr,
	}
	return err
}
