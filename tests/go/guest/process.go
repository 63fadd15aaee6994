package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const parkwarden = "/bin/parkwarden"

// patience is for one thing to happen; the machine is emulated.
const patience = 2 * time.Minute

// A target is a Go program that speaks in lines.
type target struct {
	command *exec.Cmd
	input   io.WriteCloser
	lines   chan string
}

func startTarget(program []string) (*target, error) {
	command := exec.Command(program[0], program[1:]...)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	started := &target{command, input, make(chan string, 64)}
	go func() {
		defer close(started.lines)
		reader := bufio.NewReaderSize(output, 1<<20)
		for {
			line, err := reader.ReadString('\n')
			if err != nil {
				return
			}
			started.lines <- strings.TrimSpace(line)
		}
	}()
	return started, nil
}

func (t *target) pid() int { return t.command.Process.Pid }

func (t *target) answer() (json.RawMessage, error) {
	select {
	case line, open := <-t.lines:
		if !open {
			return nil, fmt.Errorf("%s ended", t.command.Path)
		}
		return json.RawMessage(line), nil
	case <-time.After(patience):
		return nil, fmt.Errorf("%s says nothing", t.command.Path)
	}
}

func (t *target) tell(line string) error {
	_, err := io.WriteString(t.input, line+"\n")
	return err
}

func (t *target) end() {
	t.command.Process.Kill()
	t.command.Wait()
}

// A process is parkwarden, running.
type process struct {
	command *exec.Cmd
	stdout  bytes.Buffer
	errors  lines
	ended   chan struct{}
}

// lines are those of stderr so far.
type lines struct {
	mutex sync.Mutex
	text  []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.text = append(l.text, p...)
	return len(p), nil
}

func (l *lines) String() string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return string(l.text)
}

func startParkwarden(arguments []string, pid int) (*process, error) {
	return startAs(parkwarden, arguments, pid)
}

func startAs(program string, arguments []string, pid int) (*process, error) {
	words := make([]string, len(arguments))
	for i, argument := range arguments {
		words[i] = strings.ReplaceAll(argument, "{pid}", strconv.Itoa(pid))
	}
	p := &process{command: exec.Command(program, words...), ended: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = &p.stdout, &p.errors
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// says waits until stderr has a text, and tells whether that came before the end.
func (p *process) says(text string) (bool, error) {
	return p.until(func() (bool, error) { return strings.Contains(p.errors.String(), text), nil })
}

// until waits for a condition, and tells whether it came before the end.
func (p *process) until(is func() (bool, error)) (bool, error) {
	deadline := time.After(patience)
	for {
		if done, err := is(); done || err != nil {
			return done, err
		}
		select {
		case <-p.ended:
			return is()
		case <-deadline:
			p.command.Process.Kill()
			return false, fmt.Errorf("what was waited for did not come: %s", p.errors.String())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// finish waits for the end, and notes it.
func (p *process) finish(result *outcome) error {
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.command.Process.Kill()
		<-p.ended
		return fmt.Errorf("parkwarden did not end: %s", p.errors.String())
	}
	result.Code = p.code()
	result.Stdout, result.Stderr = p.stdout.String(), p.errors.String()
	return nil
}

func (p *process) code() int {
	status := p.command.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return -int(status.Signal())
	}
	return status.ExitStatus()
}
