package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Endless rows.
type rows struct{}

func (rows) Columns() []string         { return []string{"a"} }
func (rows) Close() error              { return nil }
func (rows) Next([]driver.Value) error { return nil }

type conn struct{}

func (conn) Prepare(string) (driver.Stmt, error) { return stmt{}, nil }
func (conn) Close() error                        { return nil }
func (conn) Begin() (driver.Tx, error)           { return tx{}, nil }

type tx struct{}

func (tx) Commit() error   { return nil }
func (tx) Rollback() error { return nil }

type stmt struct{}

func (stmt) Close() error                               { return nil }
func (stmt) NumInput() int                              { return 0 }
func (stmt) Exec([]driver.Value) (driver.Result, error) { return nil, errors.New("no") }
func (stmt) Query([]driver.Value) (driver.Rows, error)  { return rows{}, nil }

type connector struct{}

func (connector) Connect(context.Context) (driver.Conn, error) { return conn{}, nil }
func (connector) Driver() driver.Driver                        { return nil }

func background() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	keep <- cancel
	return ctx
}

func database() *sql.DB {
	db := sql.OpenDB(connector{})
	keep <- db
	return db
}

// Names are asked of a server that does not answer.
var resolver = net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "udp", asked.LocalAddr().String())
}}

var asked = must(net.ListenPacket("udp", "127.0.0.1:0"))

func init() {
	waits["io-pipe-write"] = func() {
		reader, writer := io.Pipe()
		keep <- reader
		go func() { _, _ = writer.Write([]byte("hello")) }()
	}
	waits["io-pipe-read"] = func() {
		reader, writer := io.Pipe()
		keep <- writer
		go func() { _, _ = io.ReadAll(reader) }()
	}
	var once sync.Once
	waits["sync-once"] = func() { go once.Do(func() { <-never }) }
	waits["signal-context"] = func() {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGUSR2)
		keep <- []any{ctx, stop}
	}

	waits["sql-opener"] = func() { database() }
	waits["sql-cleaner"] = func() {
		db := database()
		db.SetConnMaxLifetime(time.Hour)
		_ = must(db.Conn(context.Background())).Close()
	}
	shared := database()
	waits["sql-rows"] = func() { keep <- must(shared.QueryContext(background(), "all")) }
	waits["sql-tx"] = func() { keep <- must(shared.BeginTx(background(), nil)) }
	full := database()
	full.SetMaxOpenConns(1)
	keep <- must(full.Query("all"))
	waits["sql-pool"] = func() {
		go func() { _, _ = full.Query("all") }()
	}

	waits["rpc-call"] = func() {
		client := rpc.NewClient(must(net.Dial("tcp", silent.Addr().String())))
		go func() { _ = client.Call("Library.Open", 1, new(int)) }()
	}
	waits["rpc-client"] = func() {}
	waits["dns-wait"] = func() {
		go func() { _, _ = resolver.LookupIPAddr(context.Background(), "library.example.") }()
	}
	waits["dns-server"] = func() {}

	threads["process-wait"] = func() {
		command := exec.Command("cat")
		// It ends when this program does.
		keep <- must(command.StdinPipe())
		_ = command.Run()
	}
	locked, fifo := filepath.Join(os.Args[1], "locked"), filepath.Join(os.Args[1], "fifo")
	lock := func() {
		file := must(os.OpenFile(locked, os.O_CREATE|os.O_RDWR, 0o600))
		keep <- file
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	}
	lock()
	threads["syscall-flock"] = lock
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		panic(err)
	}
	threads["syscall-open"] = func() { _, _ = os.Open(fifo) }
}
